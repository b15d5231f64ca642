"""`neural-bridge bench`: measure how fast searches through the bridge are, by stage, load and size."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bridge.commands import JSON, progress_display, settings_of, show
from bridge.commands.evaluate import named_stages
from bridge.commands.options.judgements import JudgementOptions, Subject, judged_index
from bridge.commands.options.signature import EXISTING_FOLDER, cli_command, option
from bridge.errors import UsageError
from bridge.profile import Stage

if TYPE_CHECKING:
    from rich.table import Table

    from bridge.console import Display
    from bridge.evaluation.load import LoadResult

DEFAULT_STAGES = ("bm25", "expansion", "hybrid", "rerank", "cascade")


@click.group(name="bench")
def command() -> None:
    """Measure how fast searches are."""


@cli_command(of=command)
def search(
    ctx: click.Context,
    *,
    folder: Path = option(
        "--collection",
        required=True,
        type=EXISTING_FOLDER,
        help="Folder in BEIR's layout whose queries to ask; it is written to the embedded node.",
    ),
    split: str = option("--split", default="test", help="Which queries of the collection to use."),
    stages: str = option("--stages", default=",".join(DEFAULT_STAGES), help="Stages to measure, comma-separated."),
    clients: str = option("--clients", default="1,4,16", help="Numbers of concurrent clients, comma-separated."),
    seconds: float = option(
        "--seconds", type=click.FloatRange(0.1, 600), default=5.0, help="Length of each measurement."
    ),
    max_queries: int = option(
        "--max-queries", type=click.IntRange(min=1), default=200, help="Number of different queries."
    ),
    grow_to: str = option(
        "--grow-to",
        default="",
        help="Measure also with synthetic documents up to these totals, for example 10000,100000,300000.",
    ),
    as_json: bool = JSON,
) -> None:
    """Load the proxy with searches, at each stage, with more and more clients.

    The proxy keeps its ordinary budget (`proxy.budget_ms`): a search that has no time for its stage is answered
    by an earlier one and counted as degraded. Caches of scores and embeddings are off.
    """
    wanted, counts, sizes = named_stages(stages), _numbers("--clients", clients), _numbers("--grow-to", grow_to)
    display = progress_display()
    judgements = JudgementOptions(folder=folder, split=split, max_queries=max_queries)
    servers = {"proxy": {"budget_ms": settings_of(ctx).proxy.budget_ms}}
    results: dict[int, list[LoadResult]] = {}
    with judged_index(ctx, judgements, display, servers=servers) as subject:
        results[subject.index.n_documents] = _loaded(subject, subject.index.name, wanted, counts, seconds, display)
        for size in sizes:
            grown = _grow(subject, size, display)
            results[size] = _loaded(subject, grown, wanted, counts, seconds, display)
    import msgspec

    rows = [
        {"documents": size, "synthetic": max(0, size - subject.index.n_documents), **msgspec.to_builtins(result)}
        for size, of_size in results.items()
        for result in of_size
    ]
    summary = {"collection": subject.name, "seconds": seconds, "results": rows}
    show(summary, _table(subject, results), as_json=as_json, indent=None)


def _loaded(
    subject: Subject, index: str, stages: list[Stage], counts: list[int], seconds: float, display: "Display"
) -> "list[LoadResult]":
    from bridge.evaluation.load import put_under_load
    from bridge.evaluation.stages import shown_name

    results = []
    for stage in stages:
        for clients in counts:
            with display.step(f"{index}: {shown_name(stage)}, {clients} clients"):
                results.append(
                    asyncio.run(
                        put_under_load(
                            subject.index.servers.proxy_url,
                            index,
                            list(subject.judged.queries.values()),
                            stage=stage,
                            body_of=subject.body_of,
                            clients=clients,
                            seconds=seconds,
                        )
                    )
                )
    return results


def _grow(subject: Subject, size: int, display: "Display") -> str:
    """An index of `size` documents, partly synthetic, which its name says; reused the next time."""
    from bridge.cluster.index import count, delete, find
    from bridge.evaluation.growth import grow

    index = subject.index
    if size <= index.n_documents:
        raise UsageError(f"--grow-to {size}: the collection has {index.n_documents:,} documents already")
    name = f"{index.name}-synthetic-{size}"
    if (state := find(index.cluster, name)) is not None:
        if state.profile == index.profile and count(index.cluster, name) == size:
            return name
        delete(index.cluster, name)  # of other models or settings, or of a run that was cut off
    with display.progress(f"Grow to {size:,} documents", size) as progress:
        grow(index.cluster, index.name, name, index.profile, n_documents=size, on_written=progress)
    return name


def _numbers(option: str, text: str) -> list[int]:
    try:
        numbers = [int(part) for part in text.split(",") if part.strip()]
    except ValueError as error:
        raise UsageError(f"{option} {text}: expected whole numbers, comma-separated") from error
    if any(number < 1 for number in numbers):
        raise UsageError(f"{option} {text}: expected numbers from 1 on")
    return numbers


def _table(subject: Subject, results: "dict[int, list[LoadResult]]") -> "Table":
    from rich.table import Table

    from bridge.console import number_columns, safe_cell
    from bridge.evaluation.stages import shown_name

    figures = number_columns("clients", "searches/s", "p50 ms", "p95 ms", "p99 ms", "degraded", "failed")
    table = Table(
        *number_columns("documents"), "stage", *figures, title=safe_cell(f"{subject.name}: searches through the proxy")
    )
    for size, of_size in results.items():
        synthetic = " (synthetic)" if size > subject.index.n_documents else ""
        for result in of_size:
            table.add_row(
                f"{size:,}{synthetic}",
                shown_name(result.stage),
                str(result.clients),
                f"{result.per_second:.1f}",
                *(f"{value:.0f}" for value in (result.p50_ms, result.p95_ms, result.p99_ms)),
                f"{result.degraded / max(result.searches, 1):.0%}",
                str(result.failed),
            )
    return table
