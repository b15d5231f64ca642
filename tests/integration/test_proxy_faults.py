"""A real node, a real sidecar and the proxy under steady load while things go wrong.

Beside the load a probe asks the node directly. A search through the proxy may fail only where the probe
failed too.
"""

import asyncio
import json
import os
import signal
import sys
import uuid
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from bridge.errors import NodeError
from bridge.models.artifact import resolve
from bridge.models.encoder import Encoder
from bridge.node import node as nodes
from bridge.node.launch import plan_node
from bridge.node.node import EmbeddedNode
from bridge.proxy.server.app import running
from bridge.settings import ClusterSettings, NodeSettings, ProxySettings, Settings, load_settings
from tests.proxy_stack import ProxyStack
from tests.served import served
from tests.servers import client as opensearch
from tests.servers import free_port
from tests.toys import make_toy_cross_encoder, make_toy_encoder

INDEX = "faults"
REQUESTS_PER_S = 50
MAX_UNDER_WAY = 32
BUDGET_MS = 2_000
PHASE_S = 3.0
PROBE_EVERY_S = 0.05
CLIENT_TIMEOUT_S = 60.0
START_TIMEOUT_S = 600.0
DOCUMENTS = {
    "plate": ({"title": "flat plate", "body": "boundary layer on a flat plate"}, ["boundary layer of a plate"]),
    "wing": ({"title": "wing pressure", "body": "supersonic flow over a wing"}, ["flow over a wing"]),
    "shoe": ({"title": "red shoe", "body": "cheap red shoe for the garden"}, ["cheap shoe"]),
}


@dataclass(frozen=True)
class Outcome:
    """One search: seconds on the loop's clock, whether it succeeded, and what the proxy said of it."""

    started: float
    ended: float
    ok: bool
    mark: str = ""


@dataclass
class Traffic:
    """Asks the proxy and, as a probe, the node."""

    http: aiohttp.ClientSession
    proxy_url: str
    node_url: str
    probes: list[Outcome] = field(default_factory=list)
    asked: int = 0

    async def ask(self, url: str) -> Outcome:
        """One search, new each time, so that no cache answers it."""
        self.asked += 1
        body = {"query": {"match": {"title": f"red shoe {self.asked}"}}}
        loop = asyncio.get_running_loop()
        started = loop.time()
        try:
            async with self.http.post(f"{url}/{INDEX}/_search", json=body) as answer:
                content = await answer.read()
                ok = answer.status == 200 and bool(json.loads(content)["hits"]["hits"])
                return Outcome(started, loop.time(), ok, answer.headers.get("X-Bridge", "").partition(";")[0])
        except (aiohttp.ClientError, TimeoutError):
            return Outcome(started, loop.time(), ok=False)

    async def probe(self) -> None:
        """Asks the node until cancelled."""
        while True:
            self.probes.append(await self.ask(self.node_url))
            await asyncio.sleep(PROBE_EVERY_S)

    async def load(self, until: asyncio.Event | None = None) -> list[Outcome]:
        """Steady searches through the proxy, for a phase or until told; like a pool, it waits when too many hang."""
        asked: list[asyncio.Task[Outcome]] = []
        while len(asked) < REQUESTS_PER_S * PHASE_S if until is None else not until.is_set():
            asked.append(asyncio.create_task(self.ask(self.proxy_url)))
            await asyncio.sleep(1 / REQUESTS_PER_S)
            under_way = [task for task in asked if not task.done()]
            if len(under_way) >= MAX_UNDER_WAY:
                await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
        return await asyncio.gather(*asked)

    async def reranked(self) -> None:
        """Returns when a search has come through all stages, which a busy machine's budget may not allow at once."""
        async with asyncio.timeout(START_TIMEOUT_S):
            while "rerank" not in (await self.ask(self.proxy_url)).mark:
                pass

    def harmed(self, outcomes: list[Outcome]) -> list[Outcome]:
        """Failed searches during which, shortly before and shortly after, the node answered every probe."""
        return [
            outcome
            for outcome in outcomes
            if not outcome.ok
            and all(
                probe.ok
                for probe in self.probes
                if probe.ended > outcome.started - 0.5 and probe.started < outcome.ended + 0.5
            )
        ]


@dataclass
class SidecarProcess:
    """A sidecar with toy models on a port of its own."""

    folder: Path
    port: int = field(default_factory=free_port)
    process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Returns when it is ready."""
        settings = {
            "BRIDGE_SIDECAR__PORT": str(self.port),
            "BRIDGE_SIDECAR__RERANK_MODEL": str(self.folder / "cross_encoder"),
            "BRIDGE_SIDECAR__ENCODER": str(self.folder / "encoder"),
            "BRIDGE_SIDECAR__THREADS": "1",
        }
        self.process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "rerank_server", env={**os.environ, **settings}, stderr=asyncio.subprocess.DEVNULL
        )
        async with asyncio.timeout(START_TIMEOUT_S), aiohttp.ClientSession() as http:
            while not await _answers(http, f"{self.url}/ready"):
                assert self.process.returncode is None, "the sidecar ended while it started"
                await asyncio.sleep(0.2)

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    async def kill(self) -> None:
        """Ends it as the kernel would."""
        if self.process is not None and self.process.returncode is None:
            self.process.kill()
            await self.process.wait()


def _liar(port: int) -> AbstractAsyncContextManager[str]:
    """A sidecar that answers everything at once, and wrongly."""

    async def lie(request: web.Request) -> web.Response:
        return web.json_response([[0.5, "x"]] if request.path == "/embed" else [{"index": 99, "score": "high"}])

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", lie)
    return served(app, port=port)


async def _answers(http: aiohttp.ClientSession, url: str) -> bool:
    try:
        async with http.get(url) as answer:
            return answer.status == 200
    except aiohttp.ClientError:
        return False


@asynccontextmanager
async def _node() -> AsyncIterator[tuple[str, NodeSettings]]:
    """A node that keeps its port and its data when it is stopped and started: its name and settings."""
    name = f"faults-{uuid.uuid4().hex[:8]}"
    settings = load_settings(node={"port": free_port(), "start_timeout_s": START_TIMEOUT_S}).node
    try:
        plan_node(settings, None)
    except NodeError as error:
        pytest.skip(str(error))
    try:
        await asyncio.to_thread(EmbeddedNode.start, name, settings)
        yield name, settings
    finally:
        await asyncio.to_thread(nodes.clean, name, settings)


@pytest.mark.slow
@pytest.mark.node
@pytest.mark.timeout(2400)
@pytest.mark.case("P13")
@pytest.mark.case("P14")
@pytest.mark.case("P17")
async def test_no_search_fails_that_the_cluster_would_have_answered(tmp_path: Path) -> None:
    for kind, make in (("encoder", make_toy_encoder), ("cross_encoder", make_toy_cross_encoder)):
        (tmp_path / kind).mkdir()
        make(tmp_path / kind)
    sidecar = SidecarProcess(tmp_path)
    phases: dict[str, list[Outcome]] = {}
    async with AsyncExitStack() as stack:
        name, node_settings = await stack.enter_async_context(_node())
        node_url = f"http://127.0.0.1:{node_settings.port}"
        stack.push_async_callback(sidecar.kill)
        await sidecar.start()
        await asyncio.to_thread(_fill, node_url, tmp_path)
        proxy = ProxySettings(port=0, admin_port=0, sidecar_url=sidecar.url, budget_ms=BUDGET_MS, breaker_reset_s=0.5)
        started = await stack.enter_async_context(running(Settings(cluster=ClusterSettings(url=node_url), proxy=proxy)))
        timeout = aiohttp.ClientTimeout(total=CLIENT_TIMEOUT_S)
        http = await stack.enter_async_context(
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout)
        )
        traffic = Traffic(http, started.url, node_url)
        await traffic.reranked()
        probing = asyncio.create_task(traffic.probe())
        stack.callback(probing.cancel)

        phases["healthy"] = await traffic.load()
        sidecar.signal(signal.SIGSTOP)
        phases["slow"] = await traffic.load()
        sidecar.signal(signal.SIGCONT)
        await sidecar.kill()
        phases["killed"] = await traffic.load()
        async with _liar(sidecar.port):
            phases["lying"] = await traffic.load()
        await sidecar.start()
        back = asyncio.Event()
        during_restart = asyncio.create_task(traffic.load(back))
        await asyncio.to_thread(nodes.stop, name, node_settings)
        await asyncio.to_thread(EmbeddedNode.start, name, node_settings)
        back.set()
        phases["node restarted"] = await during_restart
        phases["recovered"] = await traffic.load()
        await traffic.reranked()

    harmed = {phase: traffic.harmed(outcomes) for phase, outcomes in phases.items()}
    failed = {phase: sum(not outcome.ok for outcome in outcomes) for phase, outcomes in phases.items()}
    marks = {phase: Counter(outcome.mark for outcome in outcomes) for phase, outcomes in phases.items()}
    assert {phase: found for phase, found in harmed.items() if found} == {}
    # The run proves nothing unless each fault was felt.
    assert failed["node restarted"] > 0
    assert {phase for phase, count in failed.items() if count} == {"node restarted"}
    assert not any("rerank" in mark for phase in ("killed", "lying") for mark in marks[phase]), marks


def _fill(node_url: str, models: Path) -> None:
    encoder = Encoder.load(resolve(str(models / "encoder")), threads=1)
    documents: dict[str, Any] = dict(DOCUMENTS)
    with opensearch(node_url) as direct:
        ProxyStack("", "", encoder).fill(direct, INDEX, documents, settings={"number_of_replicas": 0})
