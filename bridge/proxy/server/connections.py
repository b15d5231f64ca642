"""One client's connection: raw URLs, malformed requests, slow readers, and how many connections there may be."""

import asyncio
import resource
from typing import Any

from aiohttp import web
from aiohttp.http_exceptions import LineTooLong
from aiohttp.web_protocol import RequestHandler

from bridge.proxy.transport.refusals import Refused

_SPARE_DESCRIPTORS = 64
"""For operators' connections, files and model servers."""
_FEWEST_CONNECTIONS = 8


class ConnectionServer(web.Server):
    """Makes a `Connection` for each client, and closes the longest idle one if there are too many."""

    def __init__(self, *args: Any, write_timeout_s: float, **kwargs: Any) -> None:
        """`write_timeout_s`: how long a client may leave a part of an answer where it is."""
        super().__init__(*args, **kwargs)
        self.write_timeout_s = write_timeout_s
        # Each client's connection may need one to the cluster.
        descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.max_connections = max(_FEWEST_CONNECTIONS, (descriptors - _SPARE_DESCRIPTORS) // 2)

    def __call__(self) -> RequestHandler:
        if len(self._connections) >= self.max_connections:
            # In the order in which they were made; one that has no request has waited longest, or nearly so.
            idle = (each for each in self._connections if isinstance(each, Connection) and each.is_idle)
            if (longest := next(idle, None)) is not None:
                longest.force_close()
        return Connection(self, write_timeout_s=self.write_timeout_s, loop=self._loop, **self._kwargs)


class Connection(RequestHandler):
    """Reads requests as the cluster's nodes do: bytes beyond ASCII in a request line are a part of the target."""

    __slots__ = ("_line", "_write_timeout_s", "raw_targets")
    raw_targets: dict[str, str]
    """The target of the running request as it came, by its escaped form; empty if both are alike."""

    def __init__(self, *args: Any, write_timeout_s: float, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._write_timeout_s = write_timeout_s
        self._line = b""
        self.raw_targets = {}

    @property
    def is_idle(self) -> bool:
        """Whether the connection waits for a next request."""
        return self._waiter is not None and not self._waiter.done() and not self._line

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Lets writers wait until the kernel has everything: a rest in the transport would outlive every deadline."""
        super().connection_made(transport)
        if self.transport is not None:
            self.transport.set_write_buffer_limits(high=1, low=0)

    async def _drain_helper(self) -> None:
        """Waits for a client to read, which all writes of answers do here, for so long and no longer."""
        try:
            async with asyncio.timeout(self._write_timeout_s):
                await super()._drain_helper()
        except TimeoutError:
            if self.transport is not None:
                self.transport.abort()
            raise ConnectionAbortedError("the client does not read its answer") from None

    def data_received(self, data: bytes) -> None:
        """Feeds the parser, which takes no bytes beyond ASCII in a target: they are escaped for it."""
        if self.is_idle or self._line:
            part, end, rest = data.partition(b"\n")
            self._line += part
            if not part.isascii():
                data = _escaped(part) + end + rest
            if end:
                if not self._line.isascii():
                    self.raw_targets = {_target(_escaped(self._line)): _target(self._line)}
                self._line = b""
        super().data_received(data)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """The error in the cluster's own words. Nothing of the request is quoted or logged: it may hold a query."""
        if request.writer.output_size > 0:
            raise ConnectionError("a part of the answer is sent already")
        if isinstance(exc, LineTooLong):
            refused = Refused(431, "too_long_http_header_exception", "a line of the request is too long")
        elif status < 500:
            refused = Refused(status, "illegal_argument_exception", "the request is malformed: expected HTTP/1.1")
        else:
            self.log_exception("request failed", exc_info=exc)
            refused = Refused(status, "internal_error", "a fault of the proxy itself: its log has the traceback")
        response = web.Response(status=refused.status, body=refused.body(), content_type="application/json")
        response.force_close()
        return response


def _escaped(part: bytes) -> bytes:
    return b"".join(b"%%%02X" % byte if byte > 127 else bytes((byte,)) for byte in part)


def _target(line: bytes) -> str:
    """The second word of a request line."""
    return b"".join(line.split(b" ")[1:2]).decode("utf-8", "surrogateescape")
