"""`scripts/bench rerank`: how long it takes to score passages, in this process and over HTTP.

The passages are stretches of the Python language reference, which comes with every interpreter, with the
lengths that passages have in practice: many short ones, few long ones.
"""

import asyncio
import json as json_module
import logging
import os
import platform
import random
import statistics
import time
from collections.abc import Callable
from pydoc_data.topics import topics

import click
import msgspec
import numpy as np
import structlog
from aiohttp import ClientSession

from bridge.models.artifact import resolve
from bridge.models.cross_encoder import CrossEncoder
from bridge.models.encoder import Encoder
from bridge.models.session import compute_threads
from bridge.models.tokenization import TokenArrays
from bridge.settings import SidecarSettings
from rerank_server.models import Models
from rerank_server.server import listening

QUERY = "what happens when an exception is raised inside a with statement"
N_PASSAGES = 100
N_SHORT_LIST = 20
N_RUNS = 5
N_CLIENTS = 4
N_REQUESTS = 10
MEDIAN_WORDS, LENGTH_SPREAD, MOST_WORDS = 55, 0.6, 350


class Figures(msgspec.Struct, frozen=True):
    """What was measured; times in seconds unless the name says otherwise."""

    machine: str
    threads: int
    model: str
    n_passages: int
    mean_tokens: float
    longest_tokens: int
    score_s: float
    pairs_per_s: float
    score_short_list_s: float
    score_padded_batch_s: float
    http_short_list_ms_p50: float
    http_short_list_ms_p95: float
    http_pairs_per_s: float
    load_s: float


def main(json: bool) -> None:
    """Measures, and prints a table or one JSON object."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    figures = asyncio.run(measure(SidecarSettings()))
    if json:
        click.echo(msgspec.json.encode(figures))
        return
    for name, value in msgspec.to_builtins(figures).items():
        click.echo(f"{name:24} {value:.4g}" if isinstance(value, float) else f"{name:24} {value}")


async def measure(settings: SidecarSettings) -> Figures:
    """Loads the models that the settings name and measures them, nothing else running in this process."""
    started = time.perf_counter()
    cross_encoder = CrossEncoder.load(resolve(settings.rerank_model), threads=settings.threads)
    load_s = time.perf_counter() - started
    texts = passages(N_PASSAGES)
    pairs = cross_encoder.pairs(QUERY, texts, max_tokens=settings.max_pair_tokens)
    lengths = [pair["input_ids"].size for pair in pairs]
    padded = padded_batch(pairs)
    score_s = _median_s(lambda: cross_encoder.score(QUERY, texts))
    models = Models(cross_encoder, Encoder.load(resolve(settings.encoder), threads=1))
    waits_ms, http_pairs_per_s = await _over_http(settings, models, texts[:N_SHORT_LIST])
    return Figures(
        machine=f"{_processor()}, {os.cpu_count()} CPUs",
        threads=compute_threads(settings.threads),
        model=cross_encoder.identity,
        n_passages=len(texts),
        mean_tokens=statistics.fmean(lengths),
        longest_tokens=max(lengths),
        score_s=score_s,
        pairs_per_s=len(texts) / score_s,
        score_short_list_s=_median_s(lambda: cross_encoder.score(QUERY, texts[:N_SHORT_LIST])),
        score_padded_batch_s=_median_s(lambda: cross_encoder.score_pair(padded), n_runs=2),
        http_short_list_ms_p50=statistics.median(waits_ms),
        http_short_list_ms_p95=float(np.percentile(waits_ms, 95)),
        http_pairs_per_s=http_pairs_per_s,
        load_s=load_s,
    )


def passages(n_passages: int) -> list[str]:
    """Stretches of the language reference, lengths drawn from a log-normal distribution; always the same."""
    chosen = random.Random(20)
    words = " ".join(topics[name] for name in sorted(topics)).split()
    texts = []
    for _ in range(n_passages):
        n_words = min(MOST_WORDS, int(chosen.lognormvariate(np.log(MEDIAN_WORDS), LENGTH_SPREAD)) + 3)
        start = chosen.randrange(len(words) - n_words)
        texts.append(" ".join(words[start : start + n_words]))
    return texts


def padded_batch(pairs: list[TokenArrays]) -> TokenArrays:
    """All pairs as one batch padded to the longest: what our way is compared with."""
    longest = max(pair["input_ids"].size for pair in pairs)
    return {
        name: np.concatenate([np.pad(pair[name], ((0, 0), (0, longest - pair[name].size))) for pair in pairs])
        for name in pairs[0]
    }


async def _over_http(settings: SidecarSettings, models: Models, texts: list[str]) -> tuple[list[float], float]:
    """Milliseconds of requests one after the other, and pairs per second with several clients at once."""
    body = json_module.dumps({"query": QUERY, "texts": texts, "raw_scores": True}).encode()
    free_port = settings.model_copy(update={"port": 0})
    async with listening(free_port, models) as (_, port), ClientSession() as session:

        async def ask() -> float:
            started = time.perf_counter()
            headers = {"Content-Type": "application/json"}
            async with session.post(f"http://127.0.0.1:{port}/rerank", data=body, headers=headers) as response:
                response.raise_for_status()
                await response.read()
            return (time.perf_counter() - started) * 1000

        async def ask_repeatedly() -> None:
            for _ in range(N_REQUESTS):
                await ask()

        await ask()
        waits_ms = [await ask() for _ in range(N_REQUESTS)]
        started = time.perf_counter()
        await asyncio.gather(*(ask_repeatedly() for _ in range(N_CLIENTS)))
        took_s = time.perf_counter() - started
    return waits_ms, N_CLIENTS * N_REQUESTS * len(texts) / took_s


def _median_s(work: Callable[[], object], *, n_runs: int = N_RUNS) -> float:
    work()
    times_s = []
    for _ in range(n_runs):
        started = time.perf_counter()
        work()
        times_s.append(time.perf_counter() - started)
    return statistics.median(times_s)


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(as_json: bool) -> None:
    """Measure the reranker on this machine."""
    main(as_json)


if __name__ == "__main__":
    command()
