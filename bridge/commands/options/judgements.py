"""Options that say which index is measured, and with whose judgements: `evaluate`, `gate` and `tune` share them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from bridge.commands import Invocation, settings_of
from bridge.errors import UsageError

if TYPE_CHECKING:
    from bridge.console import Display
    from bridge.evaluation.application_query import BodyOf
    from bridge.evaluation.judged_queries import JudgedQueries
    from bridge.evaluation.stack import MeasuredIndex
    from bridge.processes.services import Overrides
    from bridge.settings import Settings

Command = TypeVar("Command", bound=Callable[..., Any])

_FILE = click.Path(path_type=Path, dir_okay=False)

_OPTIONS = [
    click.option(
        "--collection",
        "folder",
        type=click.Path(path_type=Path, file_okay=False, exists=True),
        help="Folder in BEIR's layout (corpus.jsonl, queries.jsonl, qrels/SPLIT.tsv); it is written to the embedded "
        "node.",
    ),
    click.option("--split", default="test", show_default=True, help="Which judgements of the collection."),
    click.option("--analyzer", default="english", show_default=True, help="Analyser of the collection's text."),
    click.option("--index", "index", help="An enriched index of your cluster, instead of a collection."),
    click.option("--cluster", "cluster_url", help="Address of the cluster, scheme included."),
    click.option("--body", "body_file", type=_FILE, help="Your search body as JSON, %SearchText% for the words."),
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
        help="The proxy's event log (proxy.event_log, with proxy.event_log_queries): clicks as judgements.",
    ),
    click.option(
        "--label-free",
        type=click.IntRange(min=1),
        metavar="INTEGER",
        help="Without judgements: predict so many questions anew, each for a document that should come first.",
    ),
    click.option("--max-queries", type=click.IntRange(min=1), help="Take only so many queries, evenly spread."),
]


def measured_options(command: Command) -> Command:
    """Adds the options that `Asked` holds."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


@dataclass(frozen=True, slots=True)
class Asked:
    """What the options say; the fields are the options' own names."""

    folder: Path | None
    split: str
    analyzer: str
    index: str | None
    cluster_url: str | None
    body_file: Path | None
    queries_file: Path | None
    qrels_file: Path | None
    judgements_file: Path | None
    clicks_file: Path | None
    label_free: int | None
    max_queries: int | None

    @classmethod
    def of_collection(cls, folder: Path, *, split: str, max_queries: int | None) -> "Asked":
        """A collection with its own judgements."""
        return cls(
            folder=folder,
            split=split,
            analyzer="english",
            index=None,
            cluster_url=None,
            body_file=None,
            queries_file=None,
            qrels_file=None,
            judgements_file=None,
            clicks_file=None,
            label_free=None,
            max_queries=max_queries,
        )

    @property
    def has_judgements(self) -> bool:
        """Whether judgements of an index were named."""
        return bool(self.n_sources)

    @property
    def n_sources(self) -> int:
        """How many kinds of judgements of an index were named."""
        sources = (self.queries_file, self.judgements_file, self.clicks_file, self.label_free)
        return sum(source is not None for source in sources)


@dataclass(frozen=True, slots=True)
class Measured:
    """An index that can be searched, the queries to ask, and how an application would ask them. `name`: of the
    collection or the index; `people`: a collection's own judgements, where `judged` is label-free."""

    name: str
    index: "MeasuredIndex"
    judged: "JudgedQueries"
    body_of: "BodyOf"
    people: "JudgedQueries | None" = None


@contextmanager
def measured(
    ctx: click.Context, asked: Asked, display: "Display", *, servers: "Overrides | None" = None
) -> Iterator[Measured]:
    """Brings up what the options ask for; nothing but the data stays behind the block. `servers` overrides
    settings of our sidecar and proxy.

    Raises:
        UsageError: options are missing or contradict each other, a file is wrong, or an extra is not installed.
        BridgeError: something does not come up.
    """
    _check(asked)
    settings = settings_of(ctx, cluster={"url": asked.cluster_url})
    try:
        import ir_measures  # noqa: F401 what measures without it would be found out after minutes

        from bridge.evaluation.application_query import from_template, multi_match
        from bridge.evaluation.collections import load_collection
        from bridge.evaluation.stack import FIELDS, collection_index, own_index
        from bridge.processes.supervisor import ended_by_signals
    except ModuleNotFoundError as error:
        raise UsageError(
            f"measuring needs the package {error.name}: "
            f"pip install 'opensearch-neural-bridge[node,evaluate,ctranslate2]'"
        ) from error
    config_file = (ctx.find_object(Invocation) or Invocation()).config_file
    body_of = from_template(asked.body_file) if asked.body_file else None
    with ended_by_signals():
        if asked.folder is not None:
            collection = load_collection(asked.folder, asked.split)
            with collection_index(
                collection, settings, display, config_file=config_file, analyzer=asked.analyzer, servers=servers
            ) as index:
                own = collection.judged.spread(asked.max_queries)
                questions = _label_free(asked, index, settings)
                yield Measured(
                    collection.name,
                    index,
                    questions or own,
                    body_of or multi_match(FIELDS),
                    people=own if questions is not None else None,
                )
        elif asked.index is not None:
            given = _judgements(asked)
            with own_index(asked.index, settings, display, config_file=config_file, servers=servers) as index:
                fields = index.profile.text_fields
                questions = given or _label_free(asked, index, settings)
                if questions is None:
                    raise UsageError(_NO_JUDGEMENTS)
                yield Measured(asked.index, index, questions.spread(asked.max_queries), body_of or multi_match(fields))


_NO_JUDGEMENTS = "--index needs judgements: --queries with --qrels, --judgements, --clicks, or --label-free"


def _check(asked: Asked) -> None:
    if (asked.folder is None) == (asked.index is None):
        raise UsageError("what is to be measured? Give either --collection FOLDER or --index INDEX")
    if (asked.queries_file is None) != (asked.qrels_file is None):
        raise UsageError("--queries and --qrels belong together: give both")
    if asked.index is not None and asked.n_sources != 1:
        raise UsageError(_NO_JUDGEMENTS if not asked.n_sources else "several kinds of judgements: give one of them")
    if asked.folder is not None and (asked.queries_file or asked.judgements_file or asked.clicks_file):
        raise UsageError("a collection has its own judgements: leave out --queries, --qrels, --judgements and --clicks")


def _judgements(asked: Asked) -> "JudgedQueries | None":
    from bridge.evaluation.judgement_files import read_judgement_list, read_topics

    if asked.queries_file is not None and asked.qrels_file is not None:
        return read_topics(asked.queries_file, asked.qrels_file)
    if asked.clicks_file is not None:
        return _clicks(asked.clicks_file)
    return read_judgement_list(asked.judgements_file) if asked.judgements_file is not None else None


def _clicks(file: Path) -> "JudgedQueries":
    from bridge.evaluation.click_judgements import ShownPage, judgements_of_clicks
    from bridge.proxy.experiments.event_log import Click, Impression
    from bridge.proxy.experiments.event_report import read_events

    if not file.is_file():
        raise UsageError(f"click log {file} does not exist or is no file")
    events = list(read_events(file))
    clicked: dict[str, set[str]] = {}
    for event in events:
        if isinstance(event, Click):
            clicked.setdefault(event.impression, set()).add(event.document)
    pages = [
        ShownPage(
            event.query, event.first_rank, [doc_id for _, doc_id in event.shown], frozenset(clicked.get(event.id, ()))
        )
        for event in events
        if isinstance(event, Impression) and event.query is not None
    ]
    if not pages:
        raise UsageError(f"click log {file} holds no page with its query: set proxy.event_log_queries in the proxy")
    return judgements_of_clicks(file.name, pages)


def _label_free(asked: Asked, index: "MeasuredIndex", settings: "Settings") -> "JudgedQueries | None":
    if asked.label_free is None:
        return None
    from bridge.evaluation.label_free import predict_questions

    return predict_questions(index.cluster, index.name, index.profile, settings.ingest, n_questions=asked.label_free)
