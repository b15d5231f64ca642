"""Options that say which index is measured, and with whose judgements: `evaluate`, `gate`, `tune` and `bench`."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bridge.commands import invocation_of, needs_extra, settings_of
from bridge.commands.options.enrich import Command, collected_as
from bridge.errors import UsageError

if TYPE_CHECKING:
    from bridge.console import Display
    from bridge.evaluation.application_query import BodyOf
    from bridge.evaluation.judged_queries import JudgedQueries
    from bridge.evaluation.stack import MeasuredIndex
    from bridge.processes.services import Overrides
    from bridge.settings import Settings

_FILE = click.Path(path_type=Path, dir_okay=False)

_OPTIONS = [
    click.option(
        "--collection",
        "folder",
        type=click.Path(path_type=Path, file_okay=False, exists=True),
        help="Folder in BEIR's layout (corpus.jsonl, queries.jsonl, qrels/SPLIT.tsv), to write to the embedded node.",
    ),
    click.option("--split", default="test", show_default=True, help="Which judgements of the collection to use."),
    click.option("--analyzer", default="english", show_default=True, help="Analyzer of the collection's text."),
    click.option("--index", "index", help="An enriched index of your cluster, instead of a collection."),
    click.option("--cluster", "cluster_url", help="Address of the cluster, including the scheme."),
    click.option(
        "--body", "body_file", type=_FILE, help="Your search body as JSON, with %SearchText% in place of the words."
    ),
    click.option("--queries", "queries_file", type=_FILE, help="TREC topics, JSON lines, or lines of id, tab, text."),
    click.option("--qrels", "qrels_file", type=_FILE, help="TREC qrels, or three columns: query, document, grade."),
    click.option(
        "--judgements",
        "judgements_file",
        type=_FILE,
        help="CSV with query, docid, rating (Quepid), or JSON of the Search Relevance Workbench.",
    ),
    click.option(
        "--clicks",
        "clicks_file",
        type=_FILE,
        help="The proxy's event log (proxy.event_log, with proxy.event_log_queries), to use clicks as judgements.",
    ),
    click.option(
        "--label-free",
        type=click.IntRange(min=1),
        metavar="INTEGER",
        help="Without judgements: predict this many questions, each with the document that should come first.",
    ),
    click.option("--max-queries", type=click.IntRange(min=1), help="Use at most this many queries, evenly spread."),
]


@dataclass(frozen=True, slots=True)
class JudgementOptions:
    """The options of `judgement_options`; the fields are the options' names."""

    folder: Path | None = None
    split: str = "test"
    analyzer: str = "english"
    index: str | None = None
    cluster_url: str | None = None
    body_file: Path | None = None
    queries_file: Path | None = None
    qrels_file: Path | None = None
    judgements_file: Path | None = None
    clicks_file: Path | None = None
    label_free: int | None = None
    max_queries: int | None = None

    @property
    def n_sources(self) -> int:
        """How many kinds of judgements of an index the options name."""
        sources = (self.queries_file, self.judgements_file, self.clicks_file, self.label_free)
        return sum(source is not None for source in sources)


def judgement_options(command: Command) -> Command:
    """Adds the options of `JudgementOptions`; the command receives them as `judgements`."""
    collected = collected_as(JudgementOptions, "judgements", command)
    for option in reversed(_OPTIONS):
        collected = option(collected)
    return collected


@dataclass(frozen=True, slots=True)
class Subject:
    """A running index, the queries to ask, and how an application would ask them.

    `name`: of the collection or the index. `people`: a collection's own judgements, if `judged` is label-free.
    """

    name: str
    index: "MeasuredIndex"
    judged: "JudgedQueries"
    body_of: "BodyOf"
    people: "JudgedQueries | None" = None


@contextmanager
def judged_index(
    ctx: click.Context, options: JudgementOptions, display: "Display", *, servers: "Overrides | None" = None
) -> Iterator[Subject]:
    """Starts what the options describe, for the length of the block; only data stay. `servers` overrides settings
    of the measuring sidecar and proxy.

    Raises:
        UsageError: options are missing or contradict each other, a file is wrong, or an extra is not installed.
        BridgeError: something does not start.
    """
    _check(options)
    settings = settings_of(ctx, cluster={"url": options.cluster_url})
    with needs_extra("measuring", "node,evaluate,ctranslate2"):
        import ir_measures  # noqa: F401 its absence would otherwise be noticed after minutes

        from bridge.evaluation.application_query import from_template, multi_match
        from bridge.evaluation.collections import load_collection
        from bridge.evaluation.stack import FIELDS, collection_index, own_index
        from bridge.processes.lifecycle import ended_by_signals
    config_file = invocation_of(ctx).config_file
    body_of = from_template(options.body_file) if options.body_file else None
    with ended_by_signals():
        if options.folder is not None:
            collection = load_collection(options.folder, options.split)
            with collection_index(
                collection, settings, display, config_file=config_file, analyzer=options.analyzer, servers=servers
            ) as index:
                own = _usable(collection.judged, index, options)
                questions = _label_free(options, index, settings)
                yield Subject(
                    collection.name,
                    index,
                    questions or own,
                    body_of or multi_match(FIELDS),
                    people=own if questions is not None else None,
                )
        elif options.index is not None:
            judged = _read_judgements(options)
            with own_index(options.index, settings, display, config_file=config_file, servers=servers) as index:
                fields = index.profile.text_fields
                judged = judged or _label_free(options, index, settings)
                if judged is None:
                    raise UsageError(_NO_JUDGEMENTS)
                yield Subject(options.index, index, _usable(judged, index, options), body_of or multi_match(fields))


def _usable(judged: "JudgedQueries", index: "MeasuredIndex", options: JudgementOptions) -> "JudgedQueries":
    """The queries that can measure the index, at most as many as the options allow."""
    from bridge.cluster.index import present_ids

    doc_ids = sorted({doc_id for grades in judged.qrels.values() for doc_id in grades})
    return judged.of_index(index.name, present_ids(index.cluster, index.name, doc_ids)).spread(options.max_queries)


_NO_JUDGEMENTS = "--index needs judgements: --queries with --qrels, --judgements, --clicks, or --label-free"


def _check(options: JudgementOptions) -> None:
    if (options.folder is None) == (options.index is None):
        raise UsageError("nothing to measure, or two things: give either --collection FOLDER or --index INDEX")
    if (options.queries_file is None) != (options.qrels_file is None):
        raise UsageError("--queries and --qrels belong together: give both")
    if options.index is not None and options.n_sources != 1:
        raise UsageError(_NO_JUDGEMENTS if not options.n_sources else "several kinds of judgements: give one of them")
    if options.folder is not None and (options.queries_file or options.judgements_file or options.clicks_file):
        raise UsageError("a collection has its own judgements: leave out --queries, --qrels, --judgements and --clicks")


def _read_judgements(options: JudgementOptions) -> "JudgedQueries | None":
    from bridge.evaluation.click_judgements import read_click_log
    from bridge.evaluation.judgement_files import read_judgement_list, read_topics

    if options.queries_file is not None and options.qrels_file is not None:
        return read_topics(options.queries_file, options.qrels_file)
    if options.clicks_file is not None:
        return read_click_log(options.clicks_file)
    return read_judgement_list(options.judgements_file) if options.judgements_file is not None else None


def _label_free(options: JudgementOptions, index: "MeasuredIndex", settings: "Settings") -> "JudgedQueries | None":
    if options.label_free is None:
        return None
    from bridge.evaluation.label_free import predict_questions

    return predict_questions(
        index.cluster, index.profile_in, index.profile, settings.ingest, n_questions=options.label_free
    )
