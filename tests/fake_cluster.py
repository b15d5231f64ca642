"""A scripted cluster and a scripted sidecar over real HTTP, for what a healthy node never does.

`FakeCluster` speaks HTTP on a bare socket: it keeps every byte that it was sent, and writes whatever a
script returns, half an answer included.
"""

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from tests.served import served

_END_OF_HEADERS = b"\r\n\r\n"


@dataclass(frozen=True)
class Received:
    """A request as it came. `complete`: the whole body arrived; `connection`: which connection, from 1."""

    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes
    complete: bool
    connection: int

    def header(self, name: str) -> str | None:
        """The first value of a header, whatever its case."""
        return next((value for given, value in self.headers if given.lower() == name.lower()), None)

    @property
    def path(self) -> str:
        """The target without its query string."""
        return self.target.partition("?")[0]


@dataclass(frozen=True)
class Reply:
    """What to write back. `break_after`: close the connection after so many bytes of the body (0: before
    any byte of the answer); `delay_s`: wait first."""

    status: int = 200
    body: bytes = b"{}"
    headers: tuple[tuple[str, str], ...] = (("content-type", "application/json; charset=UTF-8"),)
    break_after: int | None = None
    delay_s: float = 0.0


def reply_json(value: Any, status: int = 200, **more: Any) -> Reply:
    """A JSON answer."""
    return Reply(status, json.dumps(value, separators=(",", ":")).encode(), **more)


Script = Callable[[Received], Reply]


@dataclass
class FakeCluster:
    """Answers by `script` and records what came."""

    script: Script = lambda _: Reply()
    received: list[Received] = field(default_factory=list)
    url: str = ""
    cancelled: int = 0
    _tasks: list["asyncio.Task[None] | None"] = field(default_factory=list)
    _arrived: asyncio.Event = field(default_factory=asyncio.Event)

    def requests(self, path_end: str = "") -> list[Received]:
        """What came to paths that end so."""
        return [request for request in self.received if request.path.endswith(path_end)]

    async def has_received(self, n_requests: int) -> None:
        """Returns when so many requests have come."""
        while len(self.received) < n_requests:
            self._arrived.clear()
            await self._arrived.wait()

    async def has_lost(self, connection: int) -> None:
        """Returns when a connection, as `Received.connection` numbers it, has ended."""
        if (task := self._tasks[connection - 1]) is not None:
            await asyncio.wait([task])

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serves one connection."""
        self._tasks.append(asyncio.current_task())
        number = len(self._tasks)
        try:
            while (request := await _read_request(reader, number)) is not None:
                self.received.append(request)
                self._arrived.set()
                if not request.complete:
                    break
                reply = self.script(request)
                if reply.delay_s and await _left(reader, reply.delay_s):
                    self.cancelled += 1
                    break
                await _write(writer, reply, head_only=request.method == "HEAD")
                if reply.break_after is not None:
                    writer.transport.abort()
                    break
        except ConnectionError:
            self.cancelled += 1
        finally:
            writer.close()

    async def close(self) -> None:
        """Closes all connections."""
        tasks = [task for task in self._tasks if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)  # the loop closes a transport in its next turn


@asynccontextmanager
async def fake_cluster(
    script: Script = lambda _: Reply(), *, tls: ssl.SSLContext | None = None, port: int = 0
) -> AsyncIterator[FakeCluster]:
    """A scripted cluster; on a free port unless one is given."""
    cluster = FakeCluster(script)
    server = await asyncio.start_server(cluster.serve, "127.0.0.1", port, ssl=tls)
    cluster.url = f"http{'s' if tls else ''}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield cluster
    finally:
        server.close()
        await cluster.close()


async def _read_request(reader: asyncio.StreamReader, connection: int) -> Received | None:
    try:
        head = await reader.readuntil(_END_OF_HEADERS)
    except asyncio.IncompleteReadError:
        return None
    request_line, *lines = head[: -len(_END_OF_HEADERS)].decode("utf-8", "surrogateescape").split("\r\n")
    method, target, _ = request_line.split(" ", 2)
    headers = [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines)]
    named = {name.lower(): value for name, value in headers}
    complete = True
    body = b""
    try:
        if "chunked" in named.get("transfer-encoding", ""):
            while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
                body += await reader.readexactly(size)
                await reader.readexactly(2)
            await reader.readexactly(2)
        elif length := int(named.get("content-length", "0")):
            body = await reader.readexactly(length)
    except asyncio.IncompleteReadError as partial:
        body += partial.partial
        complete = False
    return Received(method, target, headers, body, complete, connection)


async def _left(reader: asyncio.StreamReader, within_s: float) -> bool:
    """Waits, and tells whether the peer closed the connection meanwhile."""
    loop = asyncio.get_running_loop()
    end = loop.time() + within_s
    while loop.time() < end:
        if reader.at_eof():
            return True
        await asyncio.sleep(min(0.02, within_s))
    return False


async def _write(writer: asyncio.StreamWriter, reply: Reply, *, head_only: bool) -> None:
    if reply.break_after == 0:
        return
    lines = [f"HTTP/1.1 {reply.status} Scripted", *(f"{name}: {value}" for name, value in reply.headers)]
    if not any(name.lower() in ("content-length", "transfer-encoding") for name, _ in reply.headers):
        lines.append(f"content-length: {len(reply.body)}")
    writer.write("\r\n".join(lines).encode() + _END_OF_HEADERS)
    if not head_only:
        writer.write(reply.body if reply.break_after is None else reply.body[: reply.break_after])
    await writer.drain()


SidecarScript = Callable[[str, dict[str, Any]], Awaitable[web.Response]]


@dataclass
class FakeSidecar:
    """Answers `/embed`, `/embed_sparse` and `/rerank` by `script`; records what came: (path, body), and headers."""

    script: SidecarScript
    received: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    url: str = ""
    encoder: str | None = None
    more_encoders: list[str] = field(default_factory=list)
    sparse: list[str] = field(default_factory=list)

    async def info(self, _: web.Request) -> web.Response:
        """What the sidecar says of itself."""
        several = {"embedding_model_ids": [self.encoder, *self.more_encoders]} if self.more_encoders else {}
        encoders = {"embedding_model_id": self.encoder, **several} if self.encoder else {}
        return web.json_response(encoders | ({"sparse_model_ids": self.sparse} if self.sparse else {}))

    async def handle(self, request: web.Request) -> web.Response:
        """Answers one request."""
        body = await request.json()
        self.received.append((request.path, body))
        self.headers.append({name.lower(): value for name, value in request.headers.items()})
        return await self.script(request.path, body)


async def kind_sidecar(path: str, body: dict[str, Any]) -> web.Response:
    """Embeds and weighs everything alike, and scores by the number of the query's words that a text holds."""
    if path == "/embed":
        return web.json_response([[1.0, 0.0, 0.0, 0.0] for _ in body["inputs"]])
    if path == "/embed_sparse":
        return web.json_response([[{"index": 7, "value": 2.0, "token": "shoe"}] for _ in body["inputs"]])
    words = set(body["query"].lower().split())
    return web.json_response(
        [{"index": i, "score": float(len(words & set(text.lower().split())))} for i, text in enumerate(body["texts"])]
    )


@asynccontextmanager
async def fake_sidecar(script: SidecarScript = kind_sidecar) -> AsyncIterator[FakeSidecar]:
    """A scripted sidecar on a free port."""
    sidecar = FakeSidecar(script)
    app = web.Application()
    app.router.add_post("/{path:.*}", sidecar.handle)
    app.router.add_get("/info", sidecar.info)
    async with served(app) as sidecar.url:
        yield sidecar
