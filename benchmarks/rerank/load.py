"""The sidecar as a process of its own under requests: what HTTP and the queue add, many clients, memory."""

import asyncio
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import numpy as np
from aiohttp import ClientSession

from benchmarks.rerank.machine import resident_mb
from benchmarks.rerank.passages import QUERY, passages
from bridge.errors import ServiceError

START_TIMEOUT_S = 90.0
N_CLIENTS, SHORT_LIST = 16, 20
N_SMALL, BIGGER, SMALL_REQUESTS = 10, 10, 50
"""Pairs of a small request; how many times as many as `texts` a big one beside it has; how often the small one is asked
alone."""


class Load(msgspec.Struct, frozen=True):
    """Milliseconds where the name says so; `many_…` are 16 clients that ask for 20 of the passages each, one request
    after the other."""

    start_ms: float
    http_all_ms: float
    many_pairs_per_s: float
    many_p50_ms: float
    many_p99_ms: float
    small_alone_p99_ms: float
    small_beside_big_p99_ms: float
    rss_mb: float


async def under_load(texts: Sequence[str], *, n_runs: int, n_requests: int) -> Load:
    """Starts a sidecar that remembers nothing and measures it: `n_runs` for single requests, `n_requests` of each
    of the many clients and of the small one beside the big one."""
    started = time.perf_counter()
    with _sidecar() as (pid, url):
        start_ms = (time.perf_counter() - started) * 1000
        async with ClientSession() as session:

            async def ask(asked: Sequence[str]) -> float:
                body = {"query": QUERY, "texts": asked, "raw_scores": True}
                begun = time.perf_counter()
                async with session.post(f"{url}/rerank", json=body) as response:
                    response.raise_for_status()
                    await response.read()
                return (time.perf_counter() - begun) * 1000

            async def ask_repeatedly(asked: Sequence[str], times: int = n_requests) -> list[float]:
                return [await ask(asked) for _ in range(times)]

            await ask(texts)
            http_all_ms = float(np.median([await ask(texts) for _ in range(n_runs)]))
            begun = time.perf_counter()
            around = [*texts, *texts[:SHORT_LIST]]
            starts = [client * len(texts) // N_CLIENTS for client in range(N_CLIENTS)]
            lists = [around[start : start + SHORT_LIST] for start in starts]  # each passage as often as the others
            waits = np.concatenate(await asyncio.gather(*map(ask_repeatedly, lists)))
            many_s = time.perf_counter() - begun
            small = passages(N_SMALL, seed=N_SMALL)
            alone = await ask_repeatedly(small, SMALL_REQUESTS)
            beside = await _while_running(ask(passages(BIGGER * len(texts), seed=BIGGER)), lambda: ask(small))
        return Load(
            start_ms=start_ms,
            http_all_ms=http_all_ms,
            many_pairs_per_s=N_CLIENTS * n_requests * SHORT_LIST / many_s,
            many_p50_ms=float(np.median(waits)),
            many_p99_ms=float(np.percentile(waits, 99)),
            small_alone_p99_ms=float(np.percentile(alone, 99)),
            small_beside_big_p99_ms=float(np.percentile(beside, 99)),
            rss_mb=resident_mb(pid),
        )


async def _while_running(big: Coroutine[Any, Any, float], ask: Callable[[], Coroutine[Any, Any, float]]) -> list[float]:
    """What `ask` gives, again and again as long as `big` runs."""
    running = asyncio.create_task(big)
    await asyncio.sleep(0.1)
    waits = []
    while not running.done():
        waits.append(await ask())
    await running
    return waits


@contextmanager
def _sidecar() -> Iterator[tuple[int, str]]:
    """Process id and address of a sidecar with the settings of the environment, on a free port, without a cache."""
    with TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        with log.open("wb") as errors:
            process = subprocess.Popen(
                [sys.executable, "-m", "rerank_server"],
                env={
                    **os.environ,
                    "BRIDGE_SIDECAR__PORT": "0",
                    "BRIDGE_SIDECAR__CACHED_PAIRS": "0",
                    "BRIDGE_SIDECAR__REQUEST_TIMEOUT_S": "600",
                },
                stderr=errors,
            )
        try:
            deadline = time.monotonic() + START_TIMEOUT_S
            while not (found := re.search(r'"port": (\d+)', log.read_text(encoding="utf-8"))):
                if process.poll() is not None or time.monotonic() > deadline:
                    raise ServiceError(f"the sidecar did not start: {log.read_text(encoding='utf-8')[-500:]}")
                time.sleep(0.01)
            yield process.pid, f"http://127.0.0.1:{found[1]}"
        finally:
            process.terminate()
            process.wait()
