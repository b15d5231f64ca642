"""`neural-bridge evaluate`: what each stage is worth on a collection with judgements."""

import json
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bridge.commands import Invocation, settings_of
from bridge.errors import UsageError

if TYPE_CHECKING:
    from bridge.evaluation.collections import Collection
    from bridge.evaluation.stage_results import StageResult
    from bridge.settings import Settings

STAGES = ("bm25", "expansion", "vector", "hybrid", "rerank")
DEPTH = 100
"""Hits asked for: recall@100 needs as many."""

FIELDS = ["title", "text"]
NODE = "evaluation"


@click.command(name="evaluate")
@click.option(
    "--collection",
    "folder",
    required=True,
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Folder in BEIR's layout: corpus.jsonl, queries.jsonl, qrels/SPLIT.tsv.",
)
@click.option("--split", default="test", show_default=True, help="Which judgements.")
@click.option("--stages", default=",".join(STAGES), show_default=True, help="Stages to measure, comma-separated.")
@click.option("--max-queries", type=click.IntRange(min=1), help="Take only so many queries, evenly spread.")
@click.option("--run-files", type=click.Path(path_type=Path, file_okay=False), help="Write a TREC run per stage here.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def command(
    ctx: click.Context,
    folder: Path,
    split: str,
    stages: str,
    max_queries: int | None,
    run_files: Path | None,
    as_json: bool,
) -> None:
    """Measure every stage on a collection, through the proxy, on the embedded node.

    The collection is enriched and written once; the next evaluation finds it done. Prints nDCG@10, MRR@10
    and recall@100 with 95 % bootstrap intervals, p against the first stage, and latencies.
    """
    names = _stage_names(stages)
    from bridge.evaluation.collections import load_collection

    collection = load_collection(folder, split)
    if max_queries is not None:
        collection = collection.spread(max_queries)
    n_documents, results = _measure(ctx, settings_of(ctx), collection, names, as_json=as_json)
    for result in results:
        if result.run.degraded:
            click.echo(
                f"stage {result.name}: {result.run.degraded} of {len(collection.queries)} searches were answered by an "
                f"earlier stage; its figures are not its own",
                err=True,
            )
        if run_files is not None:
            _write_run(run_files / f"{collection.name}-{result.name}.run", result)
    if as_json:
        figures = {result.name: result.figures() for result in results}
        described = {"collection": collection.name, "documents": n_documents, "queries": len(collection.queries)}
        click.echo(json.dumps({**described, "stages": figures}))
    else:
        _print_table(collection, n_documents, results)


def _stage_names(stages: str) -> list[str]:
    names = [name.strip() for name in stages.split(",") if name.strip()]
    unknown = [name for name in names if name not in STAGES]
    if unknown or not names:
        raise UsageError(
            f"--stages {stages}: no stage {', '.join(unknown) or 'at all'}; choose from {', '.join(STAGES)}"
        )
    return names


def _measure(
    ctx: click.Context, settings: "Settings", collection: "Collection", names: list[str], *, as_json: bool
) -> "tuple[int, list[StageResult]]":
    """Brings up node, index, sidecar and proxy, and runs the stages; all but the data is gone afterwards."""
    from rich.console import Console

    from bridge.cluster.connection import connect
    from bridge.cluster.node import EmbeddedNode
    from bridge.cluster.node_assembly import cache_folder
    from bridge.demo.display import Display
    from bridge.evaluation.stage_results import measure_stages
    from bridge.serving import MEASURING, sidecar_and_proxy, stop_timeout_s, with_ports
    from bridge.settings import ClusterSettings, load_settings
    from bridge.supervision import Supervisor, ended_by_signals

    display = Display(Console(stderr=True, quiet=as_json))
    config_file = (ctx.find_object(Invocation) or Invocation()).config_file
    state_folder = cache_folder(settings.node.cache_dir) / NODE
    state_folder.mkdir(parents=True, exist_ok=True)
    index = f"evaluation-{collection.name.lower()}"
    with ended_by_signals(), ExitStack() as running:
        with display.step("Start OpenSearch"):
            node = running.enter_context(EmbeddedNode.kept(NODE, settings.node))
        n_documents = _fill(node.url, index, collection, settings, state_folder, display)
        overrides = with_ports({**MEASURING, "cluster": {"url": node.url}}, load_settings(config_file, **MEASURING))
        served = load_settings(config_file, **overrides)
        with display.step("Start the rerank sidecar and the query proxy"):
            services = sidecar_and_proxy(served, config_file=config_file, overrides=overrides, log_folder=state_folder)
            running.enter_context(Supervisor(services, stop_timeout_s=stop_timeout_s(served)))
        proxy = ClusterSettings(url=f"http://{served.proxy.host}:{served.proxy.port}")
        total = len(names) * len(collection.queries)
        with connect(proxy) as client, display.progress("Search", total) as show:
            searches = iter(range(1, total + 1))
            results = measure_stages(
                client,
                index,
                queries=collection.queries,
                qrels=collection.qrels,
                names=names,
                body_of=lambda text: {"size": DEPTH, "query": {"multi_match": {"query": text, "fields": FIELDS}}},
                on_query=lambda: show(next(searches)),
            )
    return n_documents, results


def _fill(
    url: str, index: str, collection: "Collection", settings: "Settings", state_folder: Path, display: Any
) -> int:
    """Enriches and writes what the index lacks; returns how many documents it holds."""
    from bridge.cluster import index as indices
    from bridge.cluster.connection import connect
    from bridge.errors import IngestError
    from bridge.profile import PassageSettings
    from bridge.settings import ClusterSettings
    from ingest.models import load_models, profile_for
    from ingest.pipeline import run_ingest
    from ingest.sources import FieldChoice, JsonLines

    models = load_models(settings.ingest)
    profile = profile_for(models, FIELDS, passages=PassageSettings(layout="nested"))
    with collection.corpus.open("rb") as lines:
        n_lines = sum(1 for line in lines if line.strip())
    source = JsonLines(
        [str(collection.corpus)], FieldChoice(text_fields=FIELDS), max_doc_bytes=settings.ingest.max_doc_bytes
    )
    with connect(ClusterSettings(url=url)) as client:
        if client.indices.exists(index=index) and indices.look(client, index).profile != profile:
            indices.delete(client, index)
        if not client.indices.exists(index=index):
            text = {"type": "text", "analyzer": "english"}
            shape = {"number_of_shards": 1, "number_of_replicas": 0}
            indices.create(client, index, profile, properties=dict.fromkeys(FIELDS, text), settings=shape)
        with display.progress(f"Enrich {collection.name}", n_lines) as show:
            report = run_ingest(
                source,
                index=index,
                profile=profile,
                models=models,
                client=client,
                settings=settings.ingest,
                state_folder=state_folder / index,
                on_progress=lambda progress: show(progress.answered),
            )
        if report.exit_code:
            raise IngestError(
                f"collection {collection.name}: {report.ledger}: the dead letters say why: {report.dead_letters}"
            )
        if report.ledger.written:
            client.indices.forcemerge(index=index, max_num_segments=1)
        return indices.count(client, index)


def _write_run(file: Path, result: "StageResult") -> None:
    """The TREC format: query_id Q0 doc_id rank score tag; the score only repeats the order."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", encoding="utf-8") as lines:
        for query_id, doc_ids in result.run.rankings.items():
            for rank, doc_id in enumerate(doc_ids, start=1):
                lines.write(f"{query_id} Q0 {doc_id} {rank} {1 / rank:.6f} {result.name}\n")


def _print_table(collection: "Collection", n_documents: int, results: "list[StageResult]") -> None:
    from rich.console import Console
    from rich.table import Table

    from bridge.evaluation.stage_results import REPORTED

    table = Table(title=f"{collection.name}: {n_documents:,} documents, {len(collection.queries):,} queries")
    table.add_column("stage")
    for heading in (*(f"{name} [95 %]" for name in REPORTED), "p (nDCG@10)", "p50 ms", "p95 ms"):
        table.add_column(heading, justify="right")
    for result in results:
        estimates = [result.evaluation.estimate(measure) for measure in REPORTED.values()]
        figures = result.figures()
        table.add_row(
            result.name,
            *(f"{estimate.mean:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]" for estimate in estimates),
            "" if result.p_value is None else f"{result.p_value:.4f}",
            f"{figures['p50_ms']:.0f}",
            f"{figures['p95_ms']:.0f}",
        )
    Console().print(table)
