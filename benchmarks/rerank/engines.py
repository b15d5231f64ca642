"""`scripts/bench rerank`: passages a second, beside other rerankers and beside the machine's own limit, in one run.

All engines take turns with the same passages, so that a machine's moods hit all of them.
"""

import asyncio
import sys
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from statistics import fmean, median, stdev
from time import perf_counter
from typing import Literal

import click
import msgspec
import structlog
from rich.console import Console
from rich.table import Table

from benchmarks.rerank import machine
from benchmarks.rerank.load import Load, under_load
from benchmarks.rerank.passages import QUERY, passages
from benchmarks.rerank.peers import peers
from benchmarks.rerank.quality import Worth, judged_collection, judged_sections, questions, worth
from bridge.models.artifact import resolve
from bridge.models.cross_encoder import CrossEncoder
from bridge.models.encoder import Encoder
from bridge.models.session import compute_threads
from bridge.search.cascade import select_for_large_model
from bridge.settings import load_settings
from rerank_server.models import cascade_folder

DEPTH = 20
CANDIDATES = 100
"""Passages of a question over which the quality is compared."""

REFERENCE = "headings of the Python reference"
OURS, SHORT_LIST, CASCADE = "this sidecar's engine", f"… {DEPTH} of the passages", f"… cascade, then the best {DEPTH}"

Engine = Callable[[], float]
"""Scores all passages once; the seconds that it took."""


class Result(msgspec.Struct, frozen=True):
    """The last line of `--json`. How many times as long the others take; a null where nothing was there to compare.
    `ndcg`: by collection."""

    vs_torch: float | None
    vs_best_peer: float | None
    percent_of_peak: float
    cascade_vs_torch: float | None
    cascade_ndcg_kept: float | None
    rss_mb: float
    ndcg: Mapping[str, Worth]


@click.command()
@click.option("--json", "as_json", is_flag=True, help="End with one JSON object.")
@click.option("--peers/--no-peers", "with_peers", default=True, help="Run other rerankers beside ours.")
@click.option("--passages", "n_passages", type=click.IntRange(DEPTH), default=100, show_default=True)
@click.option("--runs", "n_runs", type=click.IntRange(2), default=7, show_default=True, help="Runs of each engine.")
@click.option("--queries", "n_queries", type=click.IntRange(1), default=40, show_default=True, help="For the quality.")
@click.option(
    "--collection",
    "folders",
    multiple=True,
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Folder in the layout of BEIR, for the quality; by default the Python reference, found by its headings; "
    "repeatable.",
)
@click.option(
    "--peer-model",
    help="Cross-encoder as sentence-transformers stores it; by default random weights of our shape, without a quality.",
)
def command(
    as_json: bool,
    with_peers: bool,
    n_passages: int,
    n_runs: int,
    n_queries: int,
    folders: tuple[Path, ...],
    peer_model: str | None,
) -> None:
    """Measure the reranker on this machine."""
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    settings = load_settings().sidecar
    folder = resolve(settings.rerank_model)
    large = CrossEncoder.load(folder, threads=settings.threads)
    small_folder = cascade_folder(settings)
    small = CrossEncoder.load(small_folder, threads=settings.threads) if small_folder else None
    texts = passages(n_passages)
    pairs = large.pairs(QUERY, texts, max_tokens=settings.max_pair_tokens)
    lengths = [pair["input_ids"].size for pair in pairs]
    threads = compute_threads(settings.threads)
    task = {
        "model": peer_model,
        "shape": machine.shape(folder.model_file),
        "tokenizer": str(folder.tokenizer_file),
        "query": QUERY,
        "passages": texts,
        "threads": threads,
    }
    ours: dict[str, Engine] = {
        OURS: timed(lambda: large.score(QUERY, texts)),
        SHORT_LIST: timed(lambda: large.score(QUERY, texts[:DEPTH])),
    }
    if small is not None:
        ours[CASCADE] = timed(partial(cascade, small, large, texts))
    collections = {folder.name: judged_collection(folder) for folder in folders} or {REFERENCE: judged_sections()}
    encoder = Encoder.load(resolve(settings.encoder), threads=settings.threads)
    with peers(task) if with_peers else nullcontext() as others:
        theirs = {name: partial(others.run, name) for name in others.names} if others else {}
        times = in_turns({**ours, **theirs}, n_runs)
        ndcg = {}
        for name, judged in collections.items():
            asked = questions(judged, encoder, n_queries=n_queries, n_candidates=CANDIDATES)
            peer = others.scores if others and peer_model else None
            ndcg[name] = worth(asked, large, small, peer, depth=DEPTH)
    peak = machine.int8_peak(threads)
    load = asyncio.run(under_load(texts, n_runs=n_runs, n_requests=n_runs))
    result = compared(times, machine.operations(folder.model_file, pairs) / peak, ndcg, load)
    show(Console(stderr=as_json), times, lengths, threads, peak, load, result)
    if as_json:
        click.echo(msgspec.json.encode(result))


def cascade(small: CrossEncoder, large: CrossEncoder, texts: list[str]) -> None:
    """Both stages of a cascade, without the server around them."""
    best = select_for_large_model(small.score(QUERY, texts).tolist(), depth=DEPTH)
    large.score(QUERY, [texts[index] for index in best])


def in_turns(engines: dict[str, Engine], n_runs: int) -> dict[str, list[float]]:
    """Seconds of each engine's runs; all run once before, and then in turns."""
    times: dict[str, list[float]] = {name: [] for name in engines}
    for number in range(n_runs + 1):
        for name, run in engines.items():
            took_s = run()
            if number:
                times[name].append(took_s)
    return times


def timed(work: Callable[[], object]) -> Engine:
    """`work` as an engine."""

    def run() -> float:
        started = perf_counter()
        work()
        return perf_counter() - started

    return run


def compared(times: Mapping[str, list[float]], least_s: float, ndcg: Mapping[str, Worth], load: Load) -> Result:
    """`least_s` is what our operations would take at the machine's peak."""
    medians = {name: median(each) for name, each in times.items()}
    torch_s = next((took_s for name, took_s in medians.items() if "torch" in name), None)
    others = [
        took_s for name, took_s in medians.items() if name not in (OURS, SHORT_LIST, CASCADE) and "torch" not in name
    ]
    cascade_s = medians.get(CASCADE)
    ours, by_cascade = mean_worth(ndcg, "ours"), mean_worth(ndcg, "cascade")
    return Result(
        vs_torch=torch_s / medians[OURS] if torch_s else None,
        vs_best_peer=min(others) / medians[OURS] if others else None,
        percent_of_peak=100 * least_s / medians[OURS],
        cascade_vs_torch=torch_s / cascade_s if torch_s and cascade_s else None,
        cascade_ndcg_kept=by_cascade / ours if by_cascade is not None and ours else None,
        rss_mb=load.rss_mb,
        ndcg=ndcg,
    )


def mean_worth(ndcg: Mapping[str, Worth], model: Literal["ours", "cascade", "peer"]) -> float | None:
    """A model's nDCG@10, averaged over collections; None if it was not measured."""
    values = [value for each in ndcg.values() if (value := getattr(each, model)) is not None]
    return fmean(values) if values else None


def show(
    console: Console,
    times: dict[str, list[float]],
    lengths: list[int],
    threads: int,
    peak: float,
    load: Load,
    result: Result,
) -> None:
    """Everything that was measured, as tables."""
    console.print(
        f"{machine.name()}; {threads} threads; {len(lengths)} pairs of {fmean(lengths):.0f} tokens on average"
    )
    engines = Table("engine", "median ms", "spread ms", "tokens/s", "times ours", "nDCG@10")
    ours_s = median(times[OURS])
    for name, each in times.items():
        tokens = sum(lengths[:DEPTH] if name == SHORT_LIST else lengths)
        figures = (median(each) * 1000, stdev(each) * 1000, tokens / median(each), median(each) / ours_s)
        quality = mean_worth(result.ndcg, "ours" if name == OURS else "cascade" if name == CASCADE else "peer")
        shown = "" if name == SHORT_LIST else number(quality)
        engines.add_row(name, *(f"{figure:,.0f}" for figure in figures[:3]), f"{figures[3]:.2f}", shown)
    console.print(engines)
    collections = Table(f"nDCG@10 over the same {CANDIDATES} candidates", "ours", "cascade", "peers' model")
    for name, by_model in result.ndcg.items():
        collections.add_row(name, *map(number, (by_model.ours, by_model.cascade, by_model.peer)))
    console.print(collections)
    rest = Table("figure", "value")
    rest.add_row("int8 peak, giga-operations/s", f"{peak / 1e9:,.0f}")
    rest.add_row("HTTP, JSON and queue add", f"{100 * (load.http_all_ms / 1000 / ours_s - 1):.1f} %")
    rest.add_row("16 clients: pairs/s by those of one request", f"{load.many_pairs_per_s * ours_s / len(lengths):.2f}")
    rest.add_row("16 clients: p99 by p50", f"{load.many_p99_ms / load.many_p50_ms:.2f}")
    rest.add_row(
        "small request: p99 beside a big one by p99 alone",
        f"{load.small_beside_big_p99_ms / load.small_alone_p99_ms:.2f}",
    )
    for name, value in (msgspec.to_builtins(load) | msgspec.to_builtins(result)).items():
        if name != "ndcg":
            rest.add_row(name, number(value))
    console.print(rest)


def number(value: float | None) -> str:
    """A figure of a table."""
    return f"{value:,.4g}" if value is not None else "—"
