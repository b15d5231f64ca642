"""`neural-bridge plan`: what enriching an index would mean."""

import json
from typing import TYPE_CHECKING

import click
import msgspec

from bridge.commands import INDEX, show
from bridge.commands.options.enrich import EXTERNAL_VERSIONS, WAY, EnrichOptions, repeated
from bridge.commands.options.signature import cli_command, option

if TYPE_CHECKING:
    from ingest.runs.plan import Plan
    from ingest.runs.way import Wanted, Way


@cli_command("plan")
def command(
    ctx: click.Context,
    *,
    index: str = INDEX,
    wanted: "Wanted | None" = WAY,
    enrich: EnrichOptions,
    external_versions: str | None = EXTERNAL_VERSIONS,
    sample: int = option(
        "--sample", type=click.IntRange(1, 10_000), default=1000, help="Number of documents in the sample."
    ),
) -> None:
    """Look at INDEX: which way it is enriched and why, how long this machine takes, how much it grows.

    A sample goes through the models, for a minute at most. Nothing is written. If INDEX is an alias or a data stream,
    each of its indices is planned.
    """
    settings = enrich.settings(ctx, external_versions=external_versions)
    from bridge.cluster.connection import connect
    from ingest.runs.plan import plan

    client, printed, lines = connect(settings.cluster), [], list[str]()
    models, chosen = enrich.chosen(client, index, wanted, settings, settings.ingest)
    for way, profile in chosen:
        found = plan(way, profile=profile, models=models, client=client, settings=settings.ingest, sample=sample)
        next_command = _next_command(ctx, found)
        printed.append({**msgspec.to_builtins(found), "command": next_command})
        lines += _lines(found, way, next_command)
    show(printed[0] if len(printed) == 1 else {"indices": printed}, *lines, as_json=enrich.as_json)


def _next_command(ctx: click.Context, plan: "Plan") -> str:
    """The command that does what the plan says, with the options that were typed."""
    if plan.way == "undo":
        return f"neural-bridge undo {plan.index}"
    return repeated(ctx, "backfill", plan.index, without=("as_json", "sample"))


def _lines(plan: "Plan", way: "Way", command: str) -> list[str]:
    undo = plan.way == "undo"
    adds = f"of {plan.companion}:" if plan.way == "beside" else "adds"
    return [
        f"{plan.index}: {plan.documents:,} documents, {plan.stale:,} to enrich, {plan.passages:,} passages",
        f"  way      {'anew, after' if undo else way.where}: {command}",
        f"           {'because ' + '; '.join(plan.reasons) if undo else way.why}",
        f"  time     {_duration(plan.hours)} at {plan.documents_per_s:.1f} documents/s "
        f"(measured on {plan.measured:,} of {plan.sampled:,} sampled)",
        f"  disk     grows by about {plan.index_growth_bytes / 1e6:,.0f} MB{_disk_by_document(plan)}",
        f"  memory   {plan.vector_memory_bytes / 1e6:,.0f} MB for the vectors' graphs, over all nodes: "
        f"{plan.vector_memory_bytes / (plan.documents or 1):,.0f} bytes a document",
        f"  words    {_similarity(plan)}",
        f"  mapping  {adds} {json.dumps(plan.mapping) if plan.mapping else 'nothing'}",
        *(f"  risk     {risk}" for risk in plan.risks),
    ]


def _disk_by_document(plan: "Plan") -> str:
    if plan.store_bytes is None or not plan.documents:
        return ""
    before, added = (total / plan.documents for total in (plan.store_bytes, plan.index_growth_bytes))
    return f": {before:,.0f} bytes a document before, {before + added:,.0f} after"


def _similarity(plan: "Plan") -> str:
    if plan.bm25 is None:
        return "scored by another similarity than BM25"
    return f"scored by BM25, {plan.bm25}"


def _duration(hours: float) -> str:
    return f"{hours:.1f} h" if hours >= 1 else f"{hours * 60:.1f} minutes"
