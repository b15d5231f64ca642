"""Deadlines for slow clients: aiohttp waits for headers as long as for the next request, and for bodies for ever.

A client that opens a connection and sends half a request (on purpose, or since its network died) would hold
the connection, and enough of them would hold them all.
"""

import asyncio
import time
from collections.abc import AsyncIterator

from aiohttp import web
from aiohttp.typedefs import Handler
from aiohttp.web_protocol import RequestHandler

_CHECK_EVERY_S = 1.0


class SlowClient(Exception):
    """A body that came slower than agreed; answer 408 and close."""


class FirstRequestDeadline:
    """Closes connections that have not completed the headers of a first request in time.

    Between two requests of one connection aiohttp's own keep-alive timer runs, which bytes do not reset. Add
    `middleware` to the application (or call `note`), and run `watch` beside the server.
    """

    def __init__(self, timeout_s: float) -> None:
        """`timeout_s` counts from the connection's beginning, with a second's tolerance."""
        self._timeout_s = timeout_s
        self._seen_at: dict[RequestHandler, float] = {}
        self._requested: set[RequestHandler] = set()

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Notes that this connection has completed a request's headers."""
        self.note(request)
        return await handler(request)

    def note(self, request: web.BaseRequest) -> None:
        """Does what the middleware does, for servers without an application."""
        self._requested.add(request.protocol)

    async def watch(self, runner: web.BaseRunner) -> None:
        """Looks at the open connections once a second, until cancelled."""
        while True:
            await asyncio.sleep(min(_CHECK_EVERY_S, self._timeout_s))
            server = runner.server
            if server is not None:
                self._close_late(server.connections, time.monotonic())

    def _close_late(self, connections: list[RequestHandler], now: float) -> None:
        # Both are rebuilt from the open connections, so that closed ones are forgotten.
        self._requested.intersection_update(connections)
        self._seen_at = {connection: self._seen_at.get(connection, now) for connection in connections}
        for connection, seen_at in self._seen_at.items():
            if connection not in self._requested and now - seen_at >= self._timeout_s:
                connection.force_close()


async def read_body(request: web.BaseRequest, *, timeout_s: float) -> bytes:
    """The whole body, which must come within `timeout_s`; its size is bounded by the application.

    Raises:
        SlowClient: it did not come in time.
    """
    try:
        async with asyncio.timeout(timeout_s):
            return await request.read()
    except TimeoutError as error:
        raise SlowClient(f"the body did not come within {timeout_s:g} s") from error


async def body_chunks(
    request: web.BaseRequest, *, idle_timeout_s: float, min_bytes_per_s: float = 100.0
) -> AsyncIterator[bytes]:
    """The body as it comes, for bodies of any size.

    Raises:
        SlowClient: nothing came for `idle_timeout_s`, or after that time the whole body so far was slower
            than `min_bytes_per_s` (time that our own reader took does not count).
    """
    waited_s = 0.0
    received = 0
    while True:
        # What is there already needs neither a wait nor a timer: most bodies come with their headers.
        if not (chunk := request.content.read_nowait()):
            started = time.monotonic()
            try:
                async with asyncio.timeout(idle_timeout_s):
                    chunk = await request.content.readany()
            except TimeoutError as error:
                raise SlowClient(f"the body stopped for {idle_timeout_s:g} s") from error
            if not chunk:
                return
            waited_s += time.monotonic() - started
        received += len(chunk)
        if waited_s > idle_timeout_s and received < waited_s * min_bytes_per_s:
            raise SlowClient(f"the body came slower than {min_bytes_per_s:g} bytes per second")
        yield chunk
