"""`scripts/bench collapse COLLECTION...`: five variants of each document, searched with and without `collapse`.

Variants differ in title and colour; a judgement of a document is one of its group. An index that is enriched in place
and one with a companion hold the same documents, and the node that serves them says itself which groups and inner hits
its own query has.
"""

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import click
import msgspec
from opensearchpy import OpenSearch

from benchmarks.companion import remembering
from bridge.cluster.connection import connect, exchange
from bridge.commands import progress_display
from bridge.console import Display
from bridge.evaluation.collections import Collection, load_collection, read_documents
from bridge.evaluation.judged_queries import JudgedQueries
from bridge.evaluation.measures import evaluate
from bridge.evaluation.stack import FIELDS, NODE_START_TIMEOUT_S, MeasuredIndex, own_index
from bridge.evaluation.stages import CONTROL_HEADER, MARKER_HEADER
from bridge.node.node import EmbeddedNode
from bridge.processes.services import Overrides
from bridge.profile import PassageSettings, Stage
from bridge.settings import ClusterSettings, Settings, load_settings
from ingest.job import Job
from ingest.runs.backfill import run_backfill
from ingest.runs.beside import run_beside
from ingest.stages.models import Models, load_models, profile_for

WAYS = ("in place", "beside")
STAGES: tuple[Stage, ...] = ("lexical", "hybrid", "rerank")
VARIANTS = (
    ("{}", "{}"),
    ("{}, red", "{} In red."),
    ("{}, dark blue", "{} In dark blue, as the night."),
    ("{} (green)", "Now in green. {}"),
    ("Black: {}", "{} In black, and in no other colour than black."),
)
"""Title and text of each variant, of those of the document."""

GROUP = "variant_of"
PAGE, N_PAGES = 10, 5
OWN_GROUPS = 100
_BULK_LINES = 1_000
_KEEPING: Overrides = {"proxy": {"ranking_ttl_s": 600}}
"""All pages of a query are of one ranking, as an operator may have them."""

_TRIES = 10


class Figures(msgspec.Struct):
    """Of one stage: the mean nDCG@10 over groups of the same searches without `collapse` and with it; groups on the
    first pages, how often one stood there twice, how many of them the cluster's own answer has, and how many of these
    had other inner hits."""

    uncollapsed: float = 0.0
    collapsed: float = 0.0
    groups: int = 0
    twice: int = 0
    compared: int = 0
    differing: int = 0


@click.command()
@click.argument("folders", nargs=-1, required=True, type=click.Path(path_type=Path, file_okay=False, exists=True))
@click.option("--split", default="test", show_default=True, help="Which judgements.")
@click.option("--max-queries", type=click.IntRange(min=1), default=50, show_default=True, help="Evenly spread.")
@click.option("--max-documents", type=click.IntRange(min=1), help="The first of the collection; by default all.")
@click.option(
    "--stage", "stages", type=click.Choice(STAGES), multiple=True, default=STAGES, show_default=True, help="Repeatable."
)
@click.option("--json", "as_json", is_flag=True, help="End with one JSON object.")
def command(
    folders: tuple[Path, ...],
    split: str,
    max_queries: int,
    max_documents: int | None,
    stages: tuple[Stage, ...],
    as_json: bool,
) -> None:
    """Prints nDCG@10 over groups, and counts what differs from the cluster's own groups."""
    settings, display = load_settings(node={"start_timeout_s": NODE_START_TIMEOUT_S}), progress_display()
    figures: dict[str, dict[str, dict[Stage, Figures]]] = {}
    with ExitStack() as running:
        node = running.enter_context(EmbeddedNode.owned("collapse-benchmark", settings.node))
        settings = settings.model_copy(update={"cluster": ClusterSettings(url=node.url)})
        client = running.enter_context(connect(settings.cluster))
        models = remembering(load_models(settings.ingest))
        for folder in folders:
            collection = load_collection(folder, split)
            documents = first_documents(collection, max_documents)
            judged = collection.judged.of_index(collection.name, documents).spread(max_queries)
            figures[collection.name] = {}
            for way in WAYS:
                name = f"{collection.name.lower()}-{way.replace(' ', '-')}"
                fill(client, name, documents)
                enrich(client, name, models, settings, beside=way == "beside", display=display)
                with own_index(name, settings, display, config_file=None, servers=_KEEPING) as index:
                    click.echo(f"{name}: {index.n_documents:,} variants, {len(judged.queries)} queries")
                    figures[collection.name][way] = {}
                    for stage in stages:
                        figures[collection.name][way][stage] = measured = measure(index, judged, stage, display)
                        _show(stage, measured)
    if as_json:
        click.echo(json.dumps(msgspec.to_builtins(figures)))


def first_documents(collection: Collection, most: int | None) -> dict[str, tuple[str, str]]:
    """Id → title and text of a collection's first documents; of all for None."""
    return {doc_id: (title, text) for doc_id, title, text in islice(read_documents(collection.corpus), most)}


def variants(title: str, text: str) -> list[dict[str, str]]:
    """The variants of a document with this title and text."""
    return [{"title": named.format(title), "text": told.format(text)} for named, told in VARIANTS]


def fill(
    client: OpenSearch,
    name: str,
    documents: Mapping[str, tuple[str, str]],
    *,
    made: Callable[[str, str], list[dict[str, str]]] = variants,
) -> None:
    """Writes what is `made` of each document as an application does that knows nothing of the bridge."""
    properties: dict[str, Any] = {field: {"type": "text", "analyzer": "english"} for field in FIELDS}
    settings = {"index.knn": True, "number_of_shards": 1, "number_of_replicas": 0}
    mapping = {"properties": properties | {GROUP: {"type": "keyword"}}}
    client.indices.create(index=name, body={"settings": settings, "mappings": mapping})
    lines: list[object] = []
    for doc_id, (title, text) in documents.items():
        for n, variant in enumerate(made(title, text)):
            lines += [{"index": {"_id": f"{doc_id}-{n}"}}, {**variant, GROUP: doc_id}]
    for start in range(0, len(lines), _BULK_LINES):
        body = b"".join(msgspec.json.encode(line) + b"\n" for line in lines[start : start + _BULK_LINES])
        if client.bulk(index=name, body=body, params={"filter_path": "errors"})["errors"]:
            raise click.ClickException(f"index {name} refused documents")
    client.indices.refresh(index=name)


def enrich(
    client: OpenSearch, name: str, models: Models, settings: Settings, *, beside: bool, display: Display
) -> None:
    """Enriches every document of the index."""
    profile = profile_for(models, FIELDS, passages=PassageSettings(layout="nested"))
    n_documents = client.count(index=name)["count"]
    with tempfile.TemporaryDirectory() as folder, display.progress(f"Enrich {name}", n_documents) as show:
        job = Job(name, profile, models, client, settings.ingest, Path(folder), lambda so_far: show(so_far.answered))
        report = run_beside(job, settings.companion.prefix).report if beside else run_backfill(job).report
    if report.ledger.dead_lettered:
        raise click.ClickException(f"{name}: documents are missing: {report.ledger}")


def measure(index: MeasuredIndex, judged: JudgedQueries, stage: Stage, display: Display) -> Figures:
    """All figures of a stage."""
    figures = Figures()
    asking = _Asking(index, stage)
    plain: dict[str, list[str]] = {}
    collapsed: dict[str, list[str]] = {}
    with display.progress(f"Search {index.name}, {stage}", len(judged.queries)) as show:
        for n, (query_id, words) in enumerate(judged.queries.items(), start=1):
            plain[query_id] = list(dict.fromkeys(groups_of(asking.page(words, 0, {}))))
            pages = [asking.page(words, PAGE * page, _COLLAPSE) for page in range(N_PAGES)]
            collapsed[query_id] = groups_of(pages[0])
            hits = [hit for page in pages for hit in page]
            found = groups_of(hits)
            figures.groups += len(found)
            figures.twice += len(found) - len(set(found))
            own = {hit["fields"][GROUP][0]: hit["inner_hits"] for hit in asking.own(words)}
            shown = {group: hit["inner_hits"] for group, hit in zip(found, hits, strict=True)}
            both = own.keys() & shown.keys()
            figures.compared += len(both)
            figures.differing += sum(own[group] != shown[group] for group in both)
            show(n)
    figures.uncollapsed, figures.collapsed = (
        round(evaluate(judged.qrels, run, ["nDCG@10"]).mean("nDCG@10"), 4) for run in (plain, collapsed)
    )
    return figures


_COLLAPSE = {"collapse": {"field": GROUP, "inner_hits": {"name": "variants", "size": 3, "_source": ["title"]}}}


@dataclass(frozen=True)
class _Asking:
    """Searches of one stage."""

    index: MeasuredIndex
    stage: Stage

    def page(self, words: str, start: int, collapse: Mapping[str, Any]) -> list[dict[str, Any]]:
        body = {**query(words), "from": start, "size": PAGE, **collapse}
        return hits_of(self.index.proxy, self.index.name, body, self.stage)

    def own(self, words: str) -> list[dict[str, Any]]:
        """The groups of the cluster itself."""
        return hits_of(self.index.cluster, self.index.name, {**query(words), "size": OWN_GROUPS, **_COLLAPSE})


def query(words: str) -> dict[str, Any]:
    """The application's search for words, which shows the groups."""
    return {"query": {"multi_match": {"query": words, "fields": list(FIELDS)}}, "_source": [GROUP]}


def hits_of(client: OpenSearch, name: str, body: Mapping[str, Any], control: str | None = None) -> list[dict[str, Any]]:
    """The hits of a search with all stages that `control` names, or that serve; a client of the cluster has none.

    Raises:
        ClickException: a stage is missing again and again.
    """
    headers = {CONTROL_HEADER: control} if control else {}
    # A busy machine may take a stage out.
    for _ in range(_TRIES):
        answer = exchange(client, "POST", f"/{name}/_search", body=msgspec.json.encode(body), headers=headers)
        marker = answer.headers.get(MARKER_HEADER, "")
        is_passed = marker.startswith("pass") and control != "lexical"
        if answer.status == 200 and "degraded" not in marker and not is_passed:
            hits: list[dict[str, Any]] = json.loads(answer.body)["hits"]["hits"]
            return hits
    raise click.ClickException(f"{name}, {control}: status {answer.status}, {MARKER_HEADER}: {marker}")


def groups_of(hits: Sequence[Mapping[str, Any]]) -> list[str]:
    """The group of each hit."""
    return [hit["_source"][GROUP] for hit in hits]


def _show(stage: Stage, measured: Figures) -> None:
    click.echo(
        f"  {stage:<8} nDCG@10 over groups {measured.uncollapsed:.4f} without collapse, {measured.collapsed:.4f} with; "
        f"{measured.groups:,} groups on {N_PAGES} pages of {PAGE}, {measured.twice} of them twice; "
        f"{measured.differing} of {measured.compared:,} with other inner hits than the cluster's"
    )
