"""Options that say which index is measured, and with whose judgements: `evaluate`, `gate`, `tune` and `bench`."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bridge.commands import CLUSTER, invocation_of, needs_extra, settings_of
from bridge.commands.options.signature import EXISTING_FOLDER, FILE, option
from bridge.errors import UsageError

if TYPE_CHECKING:
    from bridge.console import Display
    from bridge.evaluation.application_query import BodyOf
    from bridge.evaluation.judged_queries import JudgedQueries
    from bridge.evaluation.stack import MeasuredIndex
    from bridge.processes.services import Overrides
    from bridge.settings import Settings


@dataclass(frozen=True, slots=True)
class JudgementSources:
    """Whose judgements: of files, of readers' clicks, or of a cluster's record of clicks."""

    queries_file: Path | None = option(
        "--queries", type=FILE, help="TREC topics, JSON lines, or lines of id, tab, text."
    )
    qrels_file: Path | None = option("--qrels", type=FILE, help="TREC qrels, or three columns: query, document, grade.")
    judgements_file: Path | None = option(
        "--judgements",
        type=FILE,
        help="CSV with query, docid, rating (Quepid), or JSON of the Search Relevance Workbench.",
    )
    clicks_file: Path | None = option(
        "--clicks",
        type=FILE,
        help="The proxy's event log (proxy.event_log, with proxy.event_log_queries), or lines of User Behavior "
        "Insights, to use clicks as judgements.",
    )
    ubi: bool = option(
        "--ubi", help="Use the clicks in the cluster's indices ubi_queries and ubi_events as judgements."
    )

    @property
    def n_sources(self) -> int:
        """How many kinds of judgements the options name."""
        kinds = (self.queries_file or self.qrels_file, self.judgements_file, self.clicks_file, self.ubi)
        return sum(map(bool, kinds))

    def check(self) -> None:
        """Raises:
        UsageError: one of two files that belong together is missing.
        """
        if (self.queries_file is None) != (self.qrels_file is None):
            raise UsageError("--queries and --qrels belong together: give both")

    def read(self, settings: "Settings") -> "JudgedQueries | None":
        """The judgements; None if the options name none.

        Raises:
            UsageError: they cannot be read.
            ClusterError: `--ubi`, and the cluster cannot be asked.
        """
        from bridge.evaluation.judgement_files import read_judgement_list, read_topics

        if self.queries_file is not None and self.qrels_file is not None:
            return read_topics(self.queries_file, self.qrels_file)
        if self.judgements_file is not None:
            return read_judgement_list(self.judgements_file)
        if self.clicks_file is None and not self.ubi:
            return None
        from bridge.evaluation.click_judgements import read_click_log, read_clicks_of_cluster

        if self.clicks_file is not None:
            return read_click_log(self.clicks_file)
        from bridge.cluster.connection import connect

        return read_clicks_of_cluster(connect(settings.cluster))


@dataclass(frozen=True, slots=True)
class JudgementOptions(JudgementSources):
    """Which index is measured, and with whose judgements."""

    folder: Path | None = option(
        "--collection",
        type=EXISTING_FOLDER,
        help="Folder in BEIR's layout (corpus.jsonl, queries.jsonl, qrels/SPLIT.tsv), to write to the embedded node.",
    )
    split: str = option("--split", default="test", help="Which judgements of the collection to use.")
    analyzer: str = option("--analyzer", default="english", help="Analyzer of the collection's text.")
    index: str | None = option("--index", help="An enriched index of your cluster, instead of a collection.")
    cluster_url: str | None = CLUSTER
    body_file: Path | None = option(
        "--body", type=FILE, help="Your search body as JSON, with %SearchText% in place of the words."
    )
    label_free: int | None = option(
        "--label-free",
        type=click.IntRange(min=1),
        metavar="INTEGER",
        help="Without judgements: predict this many questions, each with the document that should come first.",
    )
    max_queries: int | None = option(
        "--max-queries", type=click.IntRange(min=1), help="Use at most this many queries, evenly spread."
    )


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
            judged = options.read(settings)
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


_NO_JUDGEMENTS = "--index needs judgements: --queries with --qrels, --judgements, --clicks, --ubi, or --label-free"


def _check(options: JudgementOptions) -> None:
    if (options.folder is None) == (options.index is None):
        raise UsageError("nothing to measure, or two things: give either --collection FOLDER or --index INDEX")
    options.check()
    n_kinds = options.n_sources + (options.label_free is not None)
    if options.index is not None and n_kinds != 1:
        raise UsageError(_NO_JUDGEMENTS if not n_kinds else "several kinds of judgements: give one of them")
    if options.folder is not None and options.n_sources:
        raise UsageError(
            "a collection has its own judgements: leave out --queries, --qrels, --judgements, --clicks and --ubi"
        )


def _label_free(options: JudgementOptions, index: "MeasuredIndex", settings: "Settings") -> "JudgedQueries | None":
    if options.label_free is None:
        return None
    from bridge.evaluation.label_free import predict_questions

    return predict_questions(
        index.cluster, index.profile_in, index.profile, settings.ingest, n_questions=options.label_free
    )
