"""A proxy between scripted neighbours, and raw HTTP for what no client library would send."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest
from opentelemetry.trace import Tracer

from bridge.proxy.server.app import RunningProxy, running
from bridge.settings import ClusterSettings, ProxySettings, Settings
from tests.bridge.proxy.scripted_index import QUERY
from tests.fake_cluster import FakeCluster, FakeSidecar, Script, SidecarScript, fake_cluster, fake_sidecar, kind_sidecar


@dataclass(frozen=True)
class Stack:
    """A running proxy, its scripted neighbours, and a client that adds nothing of its own."""

    proxy: RunningProxy
    cluster: FakeCluster
    sidecar: FakeSidecar
    client: aiohttp.ClientSession

    async def raw(
        self, request: bytes, *, until_closed: bool = True, timeout_s: float = 60.0, port: int | None = None
    ) -> bytes:
        """Sends bytes on a fresh connection, by default to the applications' port; returns what comes until
        the proxy closes it, or falls silent."""
        reader, writer = await asyncio.open_connection(self.proxy.host, port or self.proxy.port)
        received = b""
        try:
            writer.write(request)
            await writer.drain()
            async with asyncio.timeout(timeout_s):
                while chunk := await reader.read(65536):
                    received += chunk
        except TimeoutError:
            assert not until_closed, received
        except ConnectionError:
            pass
        finally:
            await closed(writer)
        return received


async def closed(writer: asyncio.StreamWriter) -> None:
    """Closes a connection of a test's own."""
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()


LARGE = 12_000_000
"""Bytes that no buffer of a connection's takes in."""


@asynccontextmanager
async def slow_reader(stack: Stack, target: str, *headers: str) -> AsyncIterator[tuple[bytes, asyncio.StreamReader]]:
    """A connection that has read the head of its answer, and reads no further unless the block does."""
    reader, writer = await asyncio.open_connection(stack.proxy.host, stack.proxy.port)
    lines = (f"POST {target} HTTP/1.1", "Host: x", "Content-Type: application/json", *headers)
    body = json.dumps(QUERY)
    writer.write("\r\n".join((*lines, f"Content-Length: {len(body)}", "", body)).encode())
    try:
        yield await reader.readuntil(b"\r\n\r\n"), reader
    finally:
        writer.transport.abort()


async def all_answered(stack: Stack) -> None:
    """Returns when the proxy has no request any more, by its own metrics."""
    while True:
        async with stack.client.get(f"{stack.proxy.admin_url}/_bridge/metrics") as exposition:
            if "bridge_proxy_requests_in_flight 0.0" in await exposition.text():
                return


MakeStack = Callable[..., Awaitable[Stack]]


@asynccontextmanager
async def stack_of(
    script: Script,
    sidecar: SidecarScript,
    *,
    sections: Mapping[str, Any] | None = None,
    tracer: Tracer | None = None,
    **proxy: Any,
) -> AsyncIterator[Stack]:
    """The three of them while the block runs; `proxy` are settings of the proxy, `sections` other settings."""
    async with AsyncExitStack() as stack:
        cluster = await stack.enter_async_context(fake_cluster(script))
        helper = await stack.enter_async_context(fake_sidecar(sidecar))
        settings = Settings(
            cluster=ClusterSettings(url=cluster.url),
            proxy=ProxySettings(
                port=0,
                admin_port=0,
                # Ample, so that a busy machine takes no stage out of a test that is not about time.
                **{"sidecar_url": helper.url, "shutdown_timeout_s": 0.2, "budget_ms": 20_000, **proxy},
            ),
            **(sections or {}),
        )
        running_proxy = await stack.enter_async_context(running(settings, tracer=tracer))
        client = await stack.enter_async_context(
            aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0),
                auto_decompress=False,
                cookie_jar=aiohttp.DummyCookieJar(),
                skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
            )
        )
        yield Stack(running_proxy, cluster, helper, client)


@pytest.fixture
async def make_stack() -> AsyncIterator[MakeStack]:
    """Makes stacks that end with the test."""
    async with AsyncExitStack() as stack:

        async def make(script: Script, sidecar: SidecarScript = kind_sidecar, **given: Any) -> Stack:
            return await stack.enter_async_context(stack_of(script, sidecar, **given))

        yield make
