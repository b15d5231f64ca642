"""The process ends when it is asked to, after the requests that it accepted."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from tests.fake_cluster import Reply, fake_cluster
from tests.served import served


@asynccontextmanager
async def proxy_process(
    cluster_url: str, *, timeout_s: float = 60.0, drain_s: float = 0.0
) -> AsyncIterator[tuple[asyncio.subprocess.Process, dict[str, Any]]]:
    """`neural-bridge serve proxy` and its first log line; the block may take `timeout_s`."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "bridge.cli", "serve", "proxy", "--port", "0", "--admin-port", "0", "--cluster", cluster_url),
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "BRIDGE_PROXY__SHUTDOWN_TIMEOUT_S": "10", "BRIDGE_PROXY__DRAIN_S": str(drain_s)},
    )
    try:
        assert process.stderr is not None
        async with asyncio.timeout(timeout_s):
            yield process, json.loads(await process.stderr.readline())
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@pytest.mark.case("P32")
async def test_accepted_requests_are_finished_and_no_others_taken() -> None:
    async with (
        fake_cluster(lambda _: Reply(body=b"done", delay_s=1.5)) as cluster,
        proxy_process(cluster.url) as (process, ready),
        aiohttp.ClientSession() as client,
    ):

        async def ask() -> tuple[int, bytes]:
            async with client.get(f"{ready['url']}/slow") as answer:
                return answer.status, await answer.read()

        asked = [asyncio.create_task(ask()) for _ in range(20)]
        async with asyncio.timeout(20):
            await cluster.has_received(20)
        process.send_signal(signal.SIGTERM)

        assert await asyncio.gather(*asked) == [(200, b"done")] * 20
        assert await process.wait() == 0
        with pytest.raises(aiohttp.ClientConnectorError):
            await ask()


class Balancer:
    """A load balancer as many are: it keeps connections open, asks now and then who is ready, and repeats nothing."""

    def __init__(self, client: aiohttp.ClientSession, *proxies: dict[str, Any]) -> None:
        self._client = client
        self._proxies = proxies
        self._turn = 0
        self._ready: list[str] = []
        self.has_all = asyncio.Event()

    async def watch(self) -> None:
        """Asks all proxies, until cancelled."""
        while True:
            self._ready = [proxy["url"] for proxy in self._proxies if await self._is_ready(proxy)]
            if len(self._ready) == len(self._proxies):
                self.has_all.set()
            await asyncio.sleep(0.05)  # between two rounds, as balancers do

    async def _is_ready(self, proxy: dict[str, Any]) -> bool:
        try:
            async with self._client.get(f"{proxy['admin_url']}/_bridge/ready") as answer:
                return answer.status == 200
        except aiohttp.ClientError:
            return False

    async def forward(self, request: web.Request) -> web.Response:
        """Gives one request to the next proxy that was ready."""
        self._turn += 1
        proxy = self._ready[self._turn % len(self._ready)]
        # aiohttp repeats a GET whose connection was closed, and a POST never.
        async with self._client.post(proxy + request.path, data=await request.read()) as answer:
            return web.Response(status=answer.status, body=await answer.read())


@pytest.mark.case("P59")
async def test_a_rolling_restart_behind_a_load_balancer_loses_no_request() -> None:
    answers: list[tuple[int, bytes]] = []
    app = web.Application()

    async def ask(stopped: asyncio.Event, url: str) -> None:
        async with aiohttp.ClientSession() as client:
            while not stopped.is_set():
                async with client.post(f"{url}/x") as answer:
                    answers.append((answer.status, await answer.read()))

    async with (
        fake_cluster(lambda _: Reply(body=b"done", delay_s=0.02)) as cluster,
        aiohttp.ClientSession() as client,
        proxy_process(cluster.url, timeout_s=240, drain_s=5.0) as (old, old_ready),
        proxy_process(cluster.url, timeout_s=200) as (_, new_ready),
    ):
        balancer = Balancer(client, old_ready, new_ready)
        app.router.add_post("/{path:.*}", balancer.forward)
        async with served(app) as url:
            watching = asyncio.create_task(balancer.watch())
            await balancer.has_all.wait()
            stopped = asyncio.Event()
            asking = [asyncio.create_task(ask(stopped, url)) for _ in range(6)]
            await cluster.has_received(100)
            old.send_signal(signal.SIGTERM)
            assert await old.wait() == 0
            await cluster.has_received(len(cluster.received) + 50)
            stopped.set()
            await asyncio.gather(*asking)
            watching.cancel()

    assert set(answers) == {(200, b"done")}


async def test_a_hangup_changes_nothing() -> None:
    async with (
        fake_cluster(lambda _: Reply(body=b"done")) as cluster,
        proxy_process(cluster.url) as (process, ready),
        aiohttp.ClientSession() as client,
    ):
        assert process.stderr is not None
        process.send_signal(signal.SIGHUP)
        assert "read again" in json.loads(await process.stderr.readline())["event"]
        async with client.get(f"{ready['url']}/x") as answer:
            assert (answer.status, await answer.read()) == (200, b"done")
        process.send_signal(signal.SIGINT)
        assert await process.wait() == 0


@pytest.mark.case("P59")
@pytest.mark.parametrize("signals", [[signal.SIGINT], [signal.SIGTERM, signal.SIGTERM]], ids=["sigint", "twice"])
async def test_the_operator_need_not_wait_for_the_end_of_the_drain(signals: list[signal.Signals]) -> None:
    async with (
        fake_cluster() as cluster,
        proxy_process(cluster.url, drain_s=3600.0) as (process, ready),
        aiohttp.ClientSession() as client,
    ):
        async with client.get(f"{ready['url']}/x") as answer:
            assert answer.status == 200
        assert process.stderr is not None
        process.send_signal(signals[0])
        assert json.loads(await process.stderr.readline())["event"] == "proxy stopping"
        for number in signals[1:]:
            process.send_signal(number)

        assert await process.wait() == 0
