"""Deadlines for slow clients, over real connections."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
from aiohttp import web

from bridge.http_deadlines import FirstRequestDeadline, SlowClient, body_chunks, read_body

pytestmark = pytest.mark.slow

CHUNKED = b"POST /chunks HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
WHOLE = b"POST /whole HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n"


async def _whole(request: web.Request) -> web.Response:
    try:
        return web.Response(body=await read_body(request, timeout_s=0.5))
    except SlowClient as error:
        return web.Response(status=408, text=str(error))


async def _chunks(request: web.Request) -> web.Response:
    try:
        chunks = [chunk async for chunk in body_chunks(request, idle_timeout_s=0.5, min_bytes_per_s=100)]
    except SlowClient as error:
        return web.Response(status=408, text=str(error))
    return web.Response(body=b"".join(chunks))


@asynccontextmanager
async def _server() -> AsyncIterator[int]:
    deadline = FirstRequestDeadline(1.0)
    app = web.Application(middlewares=[deadline.middleware])
    app.router.add_post("/whole", _whole)
    app.router.add_post("/chunks", _chunks)
    runner = web.AppRunner(app, lingering_time=2.0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    watch = asyncio.create_task(deadline.watch(runner))
    try:
        yield runner.addresses[0][1]
    finally:
        watch.cancel()
        await runner.cleanup()


async def _send(port: int, *parts: bytes, pause_s: float = 0.0) -> bytes:
    """Sends the parts with pauses between them, and reads until the server closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    with suppress(ConnectionError):
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(pause_s)
    async with asyncio.timeout(60.0):
        received = await reader.read()
    writer.close()
    return received


@pytest.mark.case("R23")
@pytest.mark.parametrize("start", [b"", b"POST /who", b"POST /whole HTTP/1.1\r\nHost: x\r\nX-Slow: "])
async def test_a_connection_without_a_whole_head_is_closed(start: bytes) -> None:
    async with _server() as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(start)
        started = time.monotonic()
        async with asyncio.timeout(60):
            assert await reader.read() == b""
        assert time.monotonic() - started > 0.9
        writer.close()


async def test_a_connection_that_has_asked_may_rest() -> None:
    async with _server() as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(WHOLE + b"body")
        await reader.readuntil(b"body")
        await asyncio.sleep(2.5)
        writer.write(WHOLE + b"more")
        assert (await reader.readuntil(b"more")).startswith(b"HTTP/1.1 200")
        writer.close()


@pytest.mark.case("R23")
@pytest.mark.parametrize(
    ("parts", "pause_s", "expected"),
    [
        ((WHOLE, b"bo", b"dy"), 0.0, b"200"),
        ((WHOLE, b"bo"), 0.0, b"408"),
        ((WHOLE, b"b", b"o", b"d", b"y"), 0.3, b"408"),
        ((CHUNKED, b"4\r\nbody\r\n", b"0\r\n\r\n"), 0.0, b"200"),
        ((CHUNKED, b"4\r\nbody\r\n"), 0.0, b"408"),
        ((CHUNKED, *[b"1\r\nx\r\n"] * 8), 0.2, b"408"),
        ((CHUNKED, *[b"c8\r\n" + b"x" * 200 + b"\r\n"] * 8, b"0\r\n\r\n"), 0.05, b"200"),
    ],
    ids=["in time", "stops", "drips", "streamed", "stream stops", "stream drips", "slow stream"],
)
async def test_a_body_must_keep_coming(parts: tuple[bytes, ...], pause_s: float, expected: bytes) -> None:
    async with _server() as port:
        closing = parts[0].replace(b"Host: x", b"Host: x\r\nConnection: close")
        assert (await _send(port, closing, *parts[1:], pause_s=pause_s))[9:12] == expected
