"""`scripts/bench proxy`: what the proxy costs, against the same node asked directly, both in turn in one run.

The node is real, the proxy a process of its own. An upgraded search is compared with a bare client's, and with one in
the shape of the engine's hybrid query, of the same words, one after the other. Embeddings come from a stand-in that
answers at once: the sidecar's time is measured by `scripts/bench rerank`. Reranking is left out for the same reason.
"""

import asyncio
import json
import os
import platform
import random
import statistics
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import aiohttp
import click
import msgspec
import numpy as np

from benchmarks.proxy_requests import Ask, BareClient, alternately, rate, send, timed
from benchmarks.proxy_stack import (
    INDEX,
    SEED,
    application_query,
    cpu_ms,
    embedder,
    embedding,
    fill,
    proxy_process,
    resident_mb,
    words,
)
from benchmarks.soak import STEPS, soaked
from benchmarks.start import Start
from benchmarks.start import measured as measured_start
from bridge.node.node import EmbeddedNode
from bridge.profile import IndexProfile
from bridge.search import json_tree, legs
from bridge.search.request import SearchRequest, parse
from bridge.settings import load_settings

WORDS_PER_BULK_DOCUMENT = 1_500
HEAP_MB = 1536
ALLOWED_MS = 3.0
"""What an upgraded search may cost on top of its slowest leg, before the ratio is taken."""


class Extent(NamedTuple):
    """How much is asked; `bulk_bytes` just below the cluster's own limit for one request, 100 MB."""

    documents: int = 3_000
    latency_rounds: int = 600
    upgraded_rounds: int = 200
    warm_up: int = 100
    throughput_rounds: int = 6
    bulk_bytes: int = 100 * 1024 * 1024 - 4096
    bulk_rounds: int = 3


SMALL = Extent(500, 40, 20, 10, 1, 4 * 1024 * 1024, 1)
"""Shows that everything works; the figures say little."""


class Figures(msgspec.Struct, frozen=True):
    """What was measured.

    `added_p50_ms`, `added_p99_ms`: a pass-through search at one connection, less the direct one.
    `throughput_kept`, `bulk_kept`: share of the direct rate, at 16 connections and for one bulk of 100 MB
    of documents whose text is indexed, as an application's is. `upgraded_overhead`: median of a fused
    search, less 3 ms, over the median of its slowest leg. `upgraded_vs_bare`: time of a fused search over that of
    `BareClient.search` for the same words, median of the ratios; `upgraded_vs_engine`: over that of
    `BareClient.search_by_engine`. `proxy_cpu_ms`, `node_cpu_ms`: processor time of a fused search in either process;
    `bare_cpu_ms`: the node's of the bare client's. `start`: of
    commands and servers. `quartiles`: the first and the third of what each median stands for.
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
    bare_p50_ms: float
    engine_p50_ms: float
    upgraded_vs_bare: float
    upgraded_vs_engine: float
    proxy_cpu_ms: float
    node_cpu_ms: float
    bare_cpu_ms: float
    resident_mb_before: float
    resident_mb_after: float
    start: Start
    quartiles: dict[str, tuple[float, float]]


@click.command()
@click.option("--small", is_flag=True, help="A little of everything, to see that it works; the figures say little.")
@click.option("--soak", type=click.IntRange(min=STEPS), help="Only send so many requests, and watch the memory.")
@click.option("--json", "as_json", is_flag=True, help="End with one JSON object.")
def command(small: bool, soak: int | None, as_json: bool) -> None:
    """Measures the proxy against a node of its own, and prints a table, or one JSON object."""
    # One bulk may take a tenth of the heap.
    node_settings = load_settings(node={"heap_mb": HEAP_MB}).node
    with EmbeddedNode.owned("proxy-benchmark", node_settings) as node:
        if soak is not None:
            figures = {"requests": soak, "resident_mb": asyncio.run(soaked(node.url, soak))}
        else:
            figures = msgspec.to_builtins(asyncio.run(measure(node.url, node.pid, SMALL if small else Extent())))
    if as_json:
        click.echo(json.dumps(figures))
        return
    for name, value in figures.items():
        click.echo(f"{name:24} {value if not isinstance(value, float) else f'{value:.2f}'}")


async def measure(cluster_url: str, node_pid: int, extent: Extent) -> Figures:
    """All figures; fills an index first."""
    start = await asyncio.to_thread(measured_start)
    chance = random.Random(SEED)
    profile = await asyncio.to_thread(fill, cluster_url, chance, extent.documents)
    async with (
        embedder() as sidecar_url,
        proxy_process(cluster_url, sidecar_url) as (proxy_url, pid),
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session,
    ):
        resident_before = resident_mb(pid)
        plain = _searches(session, chance, {"x-bridge": "off"})
        direct_ms, through_ms = await alternately(
            extent.latency_rounds, plain(cluster_url), plain(proxy_url), warm_up=extent.warm_up
        )
        rates = [await rate(plain(url)) for _ in range(extent.throughput_rounds) for url in (cluster_url, proxy_url)]
        direct_rate, through_rate = statistics.median(rates[0::2]), statistics.median(rates[1::2])
        bare = BareClient(session, f"{cluster_url}/{INDEX}", sidecar_url, profile)
        searches_ms, cpu_ms = await _upgraded(session, chance, bare, profile, proxy_url, (pid, node_pid), extent)
        ratios = {
            f"upgraded_vs_{name}": [
                one / other for one, other in zip(searches_ms["hybrid"], searches_ms[name], strict=True)
            ]
            for name in ("bare", "engine")
        }
        medians_ms = {name: statistics.median(taken) for name, taken in searches_ms.items()}
        upgraded_ms, bare_ms, engine_ms = (medians_ms.pop(name) for name in ("hybrid", "bare", "engine"))
        direct_bulk, through_bulk = await _bulks(session, chance, cluster_url, proxy_url, extent)
        measured = {"direct_ms": direct_ms, "through_ms": through_ms} | {
            f"{name}_ms": taken for name, taken in searches_ms.items()
        }
        measured |= ratios
        measured |= {"direct_requests_per_s": rates[0::2], "through_requests_per_s": rates[1::2]}
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
            legs_p50_ms=medians_ms,
            upgraded_p50_ms=upgraded_ms,
            upgraded_overhead=(upgraded_ms - ALLOWED_MS) / max(medians_ms.values()),
            bare_p50_ms=bare_ms,
            engine_p50_ms=engine_ms,
            upgraded_vs_bare=statistics.median(ratios["upgraded_vs_bare"]),
            upgraded_vs_engine=statistics.median(ratios["upgraded_vs_engine"]),
            proxy_cpu_ms=cpu_ms["proxy"],
            node_cpu_ms=cpu_ms["node"],
            bare_cpu_ms=cpu_ms["bare"],
            resident_mb_before=resident_before,
            resident_mb_after=resident_mb(pid),
            start=start,
            quartiles={name: (_percentile(taken, 25), _percentile(taken, 75)) for name, taken in measured.items()},
        )


def _searches(session: aiohttp.ClientSession, chance: random.Random, headers: dict[str, str]) -> Callable[[str], Ask]:
    def at(url: str) -> Ask:
        async def ask() -> None:
            await send(session, "POST", f"{url}/{INDEX}/_search", json_tree.write(application_query(chance)), headers)

        return ask

    return at


async def _upgraded(
    session: aiohttp.ClientSession,
    chance: random.Random,
    bare: BareClient,
    profile: IndexProfile,
    proxy_url: str,
    pids: tuple[int, int],
    extent: Extent,
) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Milliseconds of each leg asked alone, of a fused search through the proxy (`hybrid`), of the bare client's and of
    the engine's, in turn; and processor time of a search: the proxy's and the node's of `hybrid`, the node's of `bare`.
    `pids`: the proxy's and the node's."""
    taken: dict[str, list[float]] = {name: [] for name in ("own", "expansion", "vector", "bare", "engine", "hybrid")}
    spent_ms = {"proxy": 0.0, "node": 0.0, "bare": 0.0}
    proxy_pid, node_pid = pids
    for i in range(extent.warm_up + extent.upgraded_rounds):
        body = application_query(chance)
        request = _understood(body, profile)
        vector = legs.vector(request, profile, embedding(chance))
        asks: dict[str, Ask] = {
            "own": partial(bare.hits, body),
            "expansion": partial(bare.hits, legs.expansion(request, profile)),
            "vector": partial(bare.hits, vector),
            "bare": partial(bare.search, body, request),
            "engine": partial(bare.search_by_engine, body, request),
            "hybrid": partial(
                send, session, "POST", f"{proxy_url}/{INDEX}/_search", json_tree.write(body), {"x-bridge": "hybrid"}
            ),
        }
        # Whoever comes first finds colder caches: each has every place in turn.
        names = list(asks)[i % len(asks) :] + list(asks)[: i % len(asks)]
        for name in names:
            before = cpu_ms(proxy_pid), cpu_ms(node_pid)
            duration = await timed(asks[name])
            if i < extent.warm_up:
                continue
            taken[name].append(duration)
            if name == "hybrid":
                spent_ms["proxy"] += cpu_ms(proxy_pid) - before[0]
                spent_ms["node"] += cpu_ms(node_pid) - before[1]
            elif name == "bare":
                spent_ms["bare"] += cpu_ms(node_pid) - before[1]
    return taken, {name: spent / extent.upgraded_rounds for name, spent in spent_ms.items()}


async def _bulks(
    session: aiohttp.ClientSession, chance: random.Random, cluster_url: str, proxy_url: str, extent: Extent
) -> tuple[float, float]:
    """MB per second of one bulk straight and through the proxy, medians of rounds in turn."""
    lines = b"".join(
        b'{"index":{}}\n' + json_tree.write({"text": words(chance, WORDS_PER_BULK_DOCUMENT)}) + b"\n"
        for _ in range(100)
    )
    body = lines * (extent.bulk_bytes // len(lines))
    rates: dict[str, list[float]] = {cluster_url: [], proxy_url: []}
    for _ in range(extent.bulk_rounds):
        for url, measured in rates.items():
            index = f"{url}/{INDEX}-bulk"
            await send(session, "PUT", index, b'{"settings":{"refresh_interval":-1}}')
            taken_ms = await timed(
                lambda index=index: send(session, "POST", f"{index}/_bulk?filter_path=errors", body)  # type: ignore[misc]
            )
            measured.append(len(body) / 1e6 / (taken_ms / 1000))
            await send(session, "DELETE", index, b"")
    return statistics.median(rates[cluster_url]), statistics.median(rates[proxy_url])


def _understood(body: json_tree.Json, profile: IndexProfile) -> SearchRequest:
    fields = profile.text_fields
    request = parse(json_tree.write(body), "", text_fields=fields, object_field=profile.object_field)
    if not isinstance(request, SearchRequest):
        raise TypeError(f"the benchmark's own query is left alone: {request.reason}")
    return request


def _percentile(values: list[float], percent: float) -> float:
    return float(np.percentile(values, percent))
