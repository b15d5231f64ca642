"""`scripts/bench proxy`: what the proxy costs, against the same node asked directly, both in turn in one run.

The node is real, the proxy a process of its own. Embeddings come from a stand-in that answers at once: the
sidecar's time is measured by `scripts/bench rerank`. Reranking is left out for the same reason.
"""

import asyncio
import json as json_module
import os
import platform
import random
import statistics
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import click
import msgspec
import numpy as np
from aiohttp import web

import bridge.owned_process
from bridge.cluster.connection import capabilities, connect
from bridge.cluster.dialects import dialect_of
from bridge.cluster.node import EmbeddedNode
from bridge.cluster.schema import new_index
from bridge.profile import IndexProfile, ModelReference, TextField
from bridge.search import json_tree, legs
from bridge.search.request import SearchRequest, parse
from bridge.settings import ClusterSettings, NodeSettings

INDEX = "proxy-benchmark"
N_DOCUMENTS = 3_000
DIMENSION = 384
VOCABULARY = 2_000
WORDS_PER_DOCUMENT = 150
N_LATENCY_ROUNDS = 600
N_UPGRADED_ROUNDS = 200
N_WARM_UP = 100
CONNECTIONS = 16
THROUGHPUT_ROUNDS = 6
THROUGHPUT_WINDOW_S = 2.0
BULK_BYTES = 100 * 1024 * 1024 - 4096
"""Just below the cluster's own limit for one request."""
BULK_ROUNDS = 3
HEAP_MB = 1536
SEED = 7
ALLOWED_MS = 3.0
"""What an upgraded search may cost on top of its slowest leg, before the ratio is taken."""


class Figures(msgspec.Struct, frozen=True):
    """What was measured.

    `added_p50_ms`, `added_p99_ms`: a pass-through search at one connection, less the direct one.
    `throughput_kept`, `bulk_kept`: share of the direct rate, at 16 connections and for one bulk of
    100 MB. `upgraded_overhead`: median of a fused search, less 3 ms, over the median of its slowest leg.
    """

    machine: str
    direct_p50_ms: float
    direct_p99_ms: float
    added_p50_ms: float
    added_p99_ms: float
    direct_requests_per_s: float
    throughput_kept: float
    direct_bulk_mb_per_s: float
    bulk_kept: float
    legs_p50_ms: dict[str, float]
    upgraded_p50_ms: float
    upgraded_overhead: float
    resident_mb_before: float
    resident_mb_after: float


@click.command()
@click.option("--json", "as_json", is_flag=True, help="End with one JSON object.")
def command(as_json: bool) -> None:
    """Measures the proxy against a node of its own."""
    main(as_json)


def main(json: bool) -> None:
    """Measures, and prints a table, or one JSON object."""
    # One bulk may take a tenth of the heap.
    with EmbeddedNode.owned("proxy-benchmark", NodeSettings(heap_mb=HEAP_MB)) as node:
        figures = asyncio.run(measure(node.url))
    if json:
        click.echo(json_module.dumps(msgspec.to_builtins(figures)))
        return
    for name, value in msgspec.to_builtins(figures).items():
        click.echo(f"{name:24} {value if not isinstance(value, float) else f'{value:.2f}'}")


async def measure(cluster_url: str) -> Figures:
    """All figures; fills an index first."""
    chance = random.Random(SEED)
    profile = await asyncio.to_thread(_fill, cluster_url, chance)
    async with (
        _embedder() as sidecar_url,
        _proxy(cluster_url, sidecar_url) as (proxy_url, pid),
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session,
    ):
        resident_before = _resident_mb(pid)
        plain = _searches(session, chance, {"x-bridge": "off"})
        direct_ms, through_ms = await _alternately(
            N_LATENCY_ROUNDS, plain(cluster_url), plain(proxy_url), warm_up=N_WARM_UP
        )
        rates = [await _rate(plain(url)) for _ in range(THROUGHPUT_ROUNDS) for url in (cluster_url, proxy_url)]
        direct_rate, through_rate = statistics.median(rates[0::2]), statistics.median(rates[1::2])
        legs_ms, upgraded_ms = await _upgraded(session, chance, profile, cluster_url, proxy_url)
        direct_bulk, through_bulk = await _bulks(session, cluster_url, proxy_url)
        slowest = max(legs_ms.values())
        return Figures(
            machine=f"{platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}",
            direct_p50_ms=_percentile(direct_ms, 50),
            direct_p99_ms=_percentile(direct_ms, 99),
            added_p50_ms=_percentile(through_ms, 50) - _percentile(direct_ms, 50),
            added_p99_ms=_percentile(through_ms, 99) - _percentile(direct_ms, 99),
            direct_requests_per_s=direct_rate,
            throughput_kept=through_rate / direct_rate,
            direct_bulk_mb_per_s=direct_bulk,
            bulk_kept=through_bulk / direct_bulk,
            legs_p50_ms=legs_ms,
            upgraded_p50_ms=upgraded_ms,
            upgraded_overhead=(upgraded_ms - ALLOWED_MS) / slowest,
            resident_mb_before=resident_before,
            resident_mb_after=_resident_mb(pid),
        )


Ask = Callable[[], Awaitable[None]]


def _searches(session: aiohttp.ClientSession, chance: random.Random, headers: dict[str, str]) -> Callable[[str], Ask]:
    def at(url: str) -> Ask:
        async def ask() -> None:
            await _post(session, f"{url}/{INDEX}/_search", json_tree.write(_application_query(chance)), headers)

        return ask

    return at


async def _upgraded(
    session: aiohttp.ClientSession, chance: random.Random, profile: IndexProfile, cluster_url: str, proxy_url: str
) -> tuple[dict[str, float], float]:
    """Median milliseconds of each leg asked alone, and of a fused search through the proxy, in turn."""
    taken: dict[str, list[float]] = {"own": [], "expansion": [], "vector": [], "hybrid": []}
    for i in range(N_WARM_UP + N_UPGRADED_ROUNDS):
        body = _application_query(chance)
        understood = _understood(body, profile)
        asked = {
            "own": (f"{cluster_url}/{INDEX}/_search", body),
            "expansion": (f"{cluster_url}/{INDEX}/_search", legs.expansion(understood, profile)),
            "vector": (f"{cluster_url}/{INDEX}/_search", legs.vector(understood, profile, _embedding(chance))),
            "hybrid": (f"{proxy_url}/{INDEX}/_search", body),
        }
        for name, (url, sent) in asked.items():
            duration = await _timed(lambda url=url, sent=sent: _post(session, url, json_tree.write(sent), _HYBRID))  # type: ignore[misc]
            if i >= N_WARM_UP:
                taken[name].append(duration)
    medians = {name: statistics.median(durations) for name, durations in taken.items()}
    return {name: medians[name] for name in ("own", "expansion", "vector")}, medians["hybrid"]


_HYBRID = {"x-bridge": "hybrid"}


async def _bulks(session: aiohttp.ClientSession, cluster_url: str, proxy_url: str) -> tuple[float, float]:
    """MB per second of one bulk straight and through the proxy, medians of rounds in turn."""
    line = b'{"index":{}}\n' + json_tree.write({"text": "x" * 10_000}) + b"\n"
    body = line * (BULK_BYTES // len(line))
    rates: dict[str, list[float]] = {cluster_url: [], proxy_url: []}
    for _ in range(BULK_ROUNDS):
        for url, measured in rates.items():
            index = f"{url}/{INDEX}-bulk"
            await _send(session, "PUT", index, b'{"mappings":{"dynamic":false},"settings":{"refresh_interval":-1}}')
            taken_ms = await _timed(
                lambda index=index: _send(session, "POST", f"{index}/_bulk?filter_path=errors", body)  # type: ignore[misc]
            )
            measured.append(len(body) / 1e6 / (taken_ms / 1000))
            await _send(session, "DELETE", index, b"")
    return statistics.median(rates[cluster_url]), statistics.median(rates[proxy_url])


async def _alternately(rounds: int, *asks: Ask, warm_up: int) -> list[list[float]]:
    """Milliseconds of each, taken in turn so that both meet the same machine."""
    taken: list[list[float]] = [[] for _ in asks]
    for i in range(warm_up + rounds):
        for ask, durations in zip(asks, taken, strict=True):
            duration = await _timed(ask)
            if i >= warm_up:
                durations.append(duration)
    return taken


async def _rate(ask: Ask) -> float:
    """Requests per second at `CONNECTIONS` connections."""
    loop = asyncio.get_running_loop()
    started = loop.time()
    done = 0

    async def work() -> None:
        nonlocal done
        while loop.time() - started < THROUGHPUT_WINDOW_S:
            await ask()
            done += 1

    await asyncio.gather(*(work() for _ in range(CONNECTIONS)))
    return done / (loop.time() - started)


async def _timed(ask: Ask) -> float:
    loop = asyncio.get_running_loop()
    started = loop.time()
    await ask()
    return (loop.time() - started) * 1000


async def _post(session: aiohttp.ClientSession, url: str, body: bytes, headers: dict[str, str]) -> None:
    await _send(session, "POST", url, body, headers)


async def _send(
    session: aiohttp.ClientSession, method: str, url: str, body: bytes, headers: dict[str, str] | None = None
) -> None:
    given = {"Content-Type": "application/x-ndjson" if "_bulk" in url else "application/json", **(headers or {})}
    data = _pieces(body) if len(body) > 1_000_000 else body
    if data is not body:
        given["Content-Length"] = str(len(body))
    async with session.request(method, url, data=data, headers=given) as answer:
        content = await answer.read()
        if answer.status >= 300:
            raise click.ClickException(f"{method} {url} answered {answer.status}: {content[:300]!r}")


async def _pieces(body: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(body), 1 << 18):
        yield body[start : start + (1 << 18)]


def _application_query(chance: random.Random) -> dict[str, Any]:
    words = " ".join(f"word{_rank(chance)}" for _ in range(3))
    return {"size": 10, "query": {"multi_match": {"query": words, "fields": ["title", "text"]}}}


def _understood(body: dict[str, Any], profile: IndexProfile) -> SearchRequest:
    fields = [text_field.name for text_field in profile.text_fields]
    request = parse(json_tree.write(body), "", text_fields=fields, object_field=profile.object_field)
    if not isinstance(request, SearchRequest):
        raise TypeError(f"the benchmark's own query is left alone: {request.reason}")
    return request


def _rank(chance: random.Random) -> int:
    """A word's rank, common ones more often, as in texts."""
    return int(VOCABULARY ** chance.random())


def _embedding(chance: random.Random) -> list[float]:
    vector = np.random.default_rng(chance.randrange(2**32)).standard_normal(DIMENSION)
    unit: list[float] = (vector / np.linalg.norm(vector)).round(6).tolist()
    return unit


def _fill(cluster_url: str, chance: random.Random) -> IndexProfile:
    """An index of made-up documents of about 1 KB with predicted queries and vectors."""
    profile = IndexProfile(
        text_fields=[TextField("title"), TextField("text")],
        encoder=ModelReference("benchmark", "0" * 12),
        generator=ModelReference("benchmark", "0" * 12),
        dimension=DIMENSION,
    )
    with connect(ClusterSettings(url=cluster_url)) as client:
        dialect = dialect_of(capabilities(client))
        client.indices.create(index=INDEX, body=new_index(profile, dialect))
        for start in range(0, N_DOCUMENTS, 500):
            lines: list[dict[str, Any]] = []
            for i in range(start, start + 500):
                words = [f"word{_rank(chance)}" for _ in range(WORDS_PER_DOCUMENT)]
                ours = {"predicted_queries": [" ".join(words[:5])], "embedding": _embedding(chance), "stamp": "s"}
                document = {"title": " ".join(words[:6]), "text": " ".join(words), "neural": ours}
                lines += [{"index": {"_id": str(i)}}, document]
            client.bulk(index=INDEX, body=lines)
        client.indices.refresh(index=INDEX)
        client.indices.forcemerge(index=INDEX, params={"max_num_segments": "1"})
    return profile


@asynccontextmanager
async def _embedder() -> AsyncIterator[str]:
    chance = random.Random(SEED)

    async def embed(_: web.Request) -> web.Response:
        return web.json_response([_embedding(chance)])

    app = web.Application()
    app.router.add_post("/embed", embed)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def _proxy(cluster_url: str, sidecar_url: str) -> AsyncIterator[tuple[str, int]]:
    """A proxy process: its address and process id. It ends with the block, and with this process."""
    owned = [sys.executable, str(Path(bridge.owned_process.__file__)), str(os.getpid())]
    options = ["--port", "0", "--admin-port", "0", "--cluster", cluster_url, "--sidecar", sidecar_url]
    process = subprocess.Popen(  # noqa: ASYNC220 (nothing else runs yet)
        [*owned, sys.executable, "-m", "bridge.cli", "serve", "proxy", *options], stderr=subprocess.PIPE, text=True
    )
    try:
        if process.stderr is None:
            raise TypeError("the proxy's log was asked for as a pipe")
        line = await asyncio.to_thread(process.stderr.readline)
        # Later lines (a search that was degraded) must not fill the pipe.
        draining = asyncio.create_task(asyncio.to_thread(process.stderr.read))
        yield json_module.loads(line)["url"], process.pid
    finally:
        process.terminate()
        await asyncio.to_thread(process.wait)
    await draining


def _resident_mb(pid: int) -> float:
    """Resident memory of a process; 0 where the system does not tell."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    return next(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmRSS"))


def _percentile(values: list[float], percent: float) -> float:
    return float(np.percentile(values, percent))


if __name__ == "__main__":
    command()
