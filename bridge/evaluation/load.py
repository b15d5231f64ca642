"""Load test of searches: latency, throughput and degraded searches with several clients at once."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import aiohttp
import msgspec
import numpy as np

from bridge.evaluation.application_query import BodyOf
from bridge.evaluation.stages import CONTROL_HEADER, MARKER_HEADER
from bridge.profile import Stage

SIZE = 10
"""Hits per page of an application."""

RECOVERY_S = 30.0
"""Longest wait for the proxy's circuit breaker to close after an earlier load."""

_RECOVERY_POLL_S = 0.5

_CLIENT_TIMEOUT = aiohttp.ClientTimeout(total=60.0)


@dataclass(frozen=True, slots=True)
class LoadResult:
    """Results of `clients` that each sent one search after another.

    `degraded`: searches answered by an earlier stage, mostly for lack of time; `failed`: searches without status 200.
    Latencies in milliseconds of answered searches; 0 if there are none.
    """

    stage: Stage
    clients: int
    searches: int
    degraded: int
    failed: int
    per_second: float
    p50_ms: float
    p95_ms: float
    p99_ms: float


async def put_under_load(
    proxy_url: str,
    index: str,
    texts: Sequence[str],
    *,
    stage: Stage,
    body_of: BodyOf,
    clients: int,
    seconds: float,
    auth: tuple[str, str] | None = None,
) -> LoadResult:
    """Lets `clients` search for `seconds`. Each cycles through `texts` from a different start.

    Before the clock starts, each client sends one search to open its connection, and single searches are sent until one
    reaches its stage, for at most `RECOVERY_S`: an earlier load may have opened the proxy's circuit breaker.
    """
    bodies = [msgspec.json.encode({**body_of(text), "size": SIZE}) for text in texts]
    headers = {CONTROL_HEADER: stage, "content-type": "application/json"}
    url = f"{proxy_url}/{index}/_search"
    took_ms: list[float] = []
    degraded = failed = 0
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0),
        timeout=_CLIENT_TIMEOUT,
        auth=aiohttp.BasicAuth(*auth) if auth else None,
        cookie_jar=aiohttp.DummyCookieJar(),
    ) as session:

        async def search(body: bytes) -> tuple[int, str]:
            try:
                async with session.post(url, data=body, headers=headers) as answer:
                    await answer.read()
                    return answer.status, answer.headers.get(MARKER_HEADER, "")
            except (aiohttp.ClientError, TimeoutError):
                return 0, ""

        async def work(client: int, until: float) -> None:
            nonlocal degraded, failed
            at = client * len(bodies) // clients
            while time.perf_counter() < until:
                begun = time.perf_counter()
                status, marker = await search(bodies[at % len(bodies)])
                at += 1
                if status == 200:
                    took_ms.append((time.perf_counter() - begun) * 1000)
                    degraded += "degraded=" in marker
                else:
                    failed += 1

        await _recovered(lambda: search(bodies[0]))
        await asyncio.gather(*(search(bodies[client % len(bodies)]) for client in range(clients)))
        started = time.perf_counter()
        await asyncio.gather(*(work(client, started + seconds) for client in range(clients)))
        elapsed = time.perf_counter() - started
    p50, p95, p99 = np.percentile(took_ms, [50, 95, 99]) if took_ms else (0.0, 0.0, 0.0)
    return LoadResult(
        stage=stage,
        clients=clients,
        searches=len(took_ms) + failed,
        degraded=degraded,
        failed=failed,
        per_second=round(len(took_ms) / elapsed, 2),
        p50_ms=round(float(p50), 1),
        p95_ms=round(float(p95), 1),
        p99_ms=round(float(p99), 1),
    )


async def _recovered(search: Callable[[], Awaitable[tuple[int, str]]]) -> None:
    until = time.perf_counter() + RECOVERY_S
    status, marker = await search()
    while status == 200 and "degraded=" in marker and time.perf_counter() < until:
        await asyncio.sleep(_RECOVERY_POLL_S)
        status, marker = await search()
