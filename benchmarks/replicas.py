"""`scripts/bench replicas`: what a second process of the proxy, and of the sidecar, adds.

Both hold no state, so a service grows by processes, until the cores are used up. Two things that would share the
cores here are taken away: the cluster answers from memory what a real node answered before, and the sidecar's
clients wait for one request at a time. The proxies stand behind nginx as `docker/nginx.conf` sets it up; the
sidecars are asked in turn. CPU seconds for each search say what more cores would give.
"""

import asyncio
import json as json_module
import os
import random
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractContextManager, asynccontextmanager
from itertools import count
from pathlib import Path
from typing import TypeVar

import aiohttp
import click
import msgspec

from benchmarks.proxy_stack import INDEX, SEED, application_query, embedder, fill, words
from benchmarks.replica_stack import behind_nginx, cpu_s, machine_cpu_s, remembering, served
from bridge.errors import ServiceError
from bridge.node.node import EmbeddedNode
from bridge.processes.services import Overrides
from bridge.settings import load_settings

N_DOCUMENTS = 3_000
N_QUERIES = 64
N_PASSAGES = 20
WORDS_PER_PASSAGE = 60
CLIENTS = 16
SECONDS = 8.0
PROCESSES = (1, 2)

T = TypeVar("T")

Ask = Callable[[aiohttp.ClientSession, int], Awaitable[None]]
"""Sends the request of a number, and reads its answer."""


class Figures(msgspec.Struct, frozen=True):
    """One number of processes. `growth`: over one process. `cpu_ms`: processor time that these processes spent on
    a request; `other_cpu_ms`: that everything else here did (clients, load balancer, remembered cluster)."""

    service: str
    processes: int
    requests_per_s: float
    growth: float
    cpu_ms: float
    other_cpu_ms: float


@click.command()
@click.option("--json", "as_json", is_flag=True, help="End with one JSON object.")
@click.option("--quick", is_flag=True, help="A second for each measurement: to see that it works.")
def command(as_json: bool, quick: bool) -> None:
    """Measures both services with one process and with two, and prints a table."""
    seconds = 1.0 if quick else SECONDS
    found: list[Figures] = []

    def take(measured: Figures) -> None:
        alone = found[-1].requests_per_s if measured.processes > 1 else measured.requests_per_s
        found.append(msgspec.structs.replace(measured, growth=round(measured.requests_per_s / alone, 2)))
        each = found[-1]
        click.echo(
            f"{each.service:8} {each.processes} process(es) {each.requests_per_s:8.1f} requests/s, "
            f"growth {each.growth:.2f}, CPU {each.cpu_ms:6.2f} ms + {each.other_cpu_ms:.2f} ms elsewhere"
        )

    for n in PROCESSES:
        take(asyncio.run(sidecars(n, seconds)))
    with (
        EmbeddedNode.owned("replicas-benchmark", load_settings().node) as node,
        tempfile.TemporaryDirectory() as folder,
    ):
        fill(node.url, random.Random(SEED), N_DOCUMENTS)
        for n in PROCESSES:
            take(asyncio.run(proxies(n, node.url, Path(folder), seconds)))
    click.echo(f"{os.cpu_count()} cores in all")
    if as_json:
        click.echo(json_module.dumps(msgspec.to_builtins(found)))


async def sidecars(n_processes: int, seconds: float) -> Figures:
    """Rerank servers of one thread each; every request has passages that no other had."""
    chance = random.Random(SEED)
    with served("rerank", {"sidecar": {"threads": 1}}, n_processes) as (urls, pids):

        async def ask(session: aiohttp.ClientSession, number: int) -> None:
            passages = [words(chance, WORDS_PER_PASSAGE) for _ in range(N_PASSAGES)]
            body = {"query": words(chance, 3), "texts": passages}
            async with session.post(f"{urls[number % len(urls)]}/rerank", json=body) as answer:
                answer.raise_for_status()
                await answer.read()

        return await _measured("sidecar", n_processes, pids, ask, seconds, clients=2 * n_processes)


async def proxies(n_processes: int, cluster_url: str, folder: Path, seconds: float) -> Figures:
    """Proxies behind nginx; searches are fused from three legs, without reranking."""
    chance = random.Random(SEED)
    bodies = [application_query(chance) for _ in range(N_QUERIES)]
    async with embedder() as sidecar_url, remembering(cluster_url) as remembered_url:
        settings: Overrides = {
            "cluster": {"url": remembered_url},
            "proxy": {"sidecar_url": sidecar_url, "budget_ms": 30_000},
        }
        async with (
            _in_thread(served("proxy", settings, n_processes)) as (urls, pids),
            _in_thread(behind_nginx(folder, urls, remembered_url)) as url,
        ):

            async def ask(session: aiohttp.ClientSession, number: int) -> None:
                body, headers = bodies[number % N_QUERIES], {"x-bridge": "hybrid"}
                async with session.post(f"{url}/{INDEX}/_search", json=body, headers=headers) as answer:
                    await answer.read()
                    marker = answer.headers.get("x-bridge", "pass")
                    if answer.status != 200 or marker.startswith("pass") or "degraded=" in marker:
                        raise ServiceError(f"a search was answered {answer.status}, {marker}: expected all legs")

            # Before the clock starts each proxy asks each search: from then on all is remembered.
            return await _measured("proxy", n_processes, pids, ask, seconds, warm_up=8 * N_QUERIES)


@asynccontextmanager
async def _in_thread(manager: AbstractContextManager[T]) -> AsyncIterator[T]:
    """Enters and leaves in another thread: what starts is answered by this loop meanwhile."""
    entered = await asyncio.to_thread(manager.__enter__)
    try:
        yield entered
    finally:
        await asyncio.to_thread(manager.__exit__, None, None, None)


async def _measured(
    service: str,
    n_processes: int,
    pids: Sequence[int],
    ask: Ask,
    seconds: float,
    *,
    clients: int = CLIENTS,
    warm_up: int = 20,
) -> Figures:
    numbers = count()
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def work(until: Callable[[int], bool]) -> int:
            asked = 0
            while until(number := next(numbers)):
                await ask(session, number)
                asked += 1
            return asked

        await asyncio.gather(*(work(lambda number: number < warm_up) for _ in range(clients)))
        cpu, everything, began = cpu_s(pids), machine_cpu_s(), time.perf_counter()
        ends = began + seconds
        asked = sum(await asyncio.gather(*(work(lambda _: time.perf_counter() < ends) for _ in range(clients))))
        took = time.perf_counter() - began
        cpu, everything = cpu_s(pids) - cpu, machine_cpu_s() - everything
    return Figures(
        service=service,
        processes=n_processes,
        requests_per_s=round(asked / took, 1),
        growth=1.0,
        cpu_ms=round(1000 * cpu / asked, 2),
        other_cpu_ms=round(1000 * (everything - cpu) / asked, 2),
    )
