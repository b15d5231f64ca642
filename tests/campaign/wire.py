"""HTTP/1.1 over raw connections: requests that no client library would send, and answers as they came."""

import asyncio
import gzip
import zlib
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import urlsplit

import msgspec

TIMEOUT_S = 60.0
"""After so long an answer counts as none. A busy machine takes its time."""
NO_ANSWER = 0
"""The status of an answer that never came."""


class Request(msgspec.Struct, frozen=True):
    """A request, byte for byte. `headers` stand in their order, without those that frame the body; `framing` says
    which they are. `{twin}` in target and body stands for the index that this side writes to."""

    method: str
    target: bytes
    headers: tuple[tuple[bytes, bytes], ...] = ()
    body: bytes = b""
    framing: str = "length"
    version: bytes = b"HTTP/1.1"

    @property
    def is_http(self) -> bool:
        """Whether the target is one that HTTP knows: a path from the root, without a space."""
        return self.target.startswith(b"/") and b" " not in self.target

    def bytes_for(self, twin: str, more: tuple[tuple[bytes, bytes], ...] = ()) -> bytes:
        """What goes over the connection; `more` are headers to add."""
        name = twin.encode()
        body = self.body.replace(b"{twin}", name)
        headers = [(b"Host", b"cluster"), *self.headers, *more]
        if self.framing == "chunked":
            half = len(body) // 2
            pieces = [piece for piece in (body[:half], body[half:]) if piece]
            body = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
            headers.append((b"Transfer-Encoding", b"chunked"))
        elif body:
            headers.append((b"Content-Length", b"%d" % len(body)))
        lines = [b" ".join((self.method.encode(), self.target.replace(b"{twin}", name), self.version))]
        lines += [b"%s: %s" % header for header in headers]
        return b"\r\n".join((*lines, b"", body))


class Answer(msgspec.Struct, frozen=True):
    """An answer; status 0 and a `fault` where none came, or not all of it."""

    status: int
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    fault: str = ""

    def header(self, name: str) -> str:
        """The first of that name, which is in lower case; empty if there is none."""
        return next((value for key, value in self.headers if key == name), "")

    @property
    def content(self) -> bytes:
        """The body without the compression that its headers name."""
        encoding = self.header("content-encoding")
        with suppress(OSError, zlib.error, EOFError):
            if encoding == "gzip":
                return gzip.decompress(self.body)
            if encoding == "deflate":
                return zlib.decompress(self.body)
        return self.body


@dataclass
class Connection:
    """A connection to one server, opened anew whenever the last exchange ended it."""

    url: str
    _streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, raw: bytes, *, timeout_s: float = TIMEOUT_S) -> Answer:
        """Sends the bytes of one request and reads its answer."""
        method = raw.partition(b" ")[0]
        reused = self._streams is not None
        answer = await self._exchange(raw, method, timeout_s)
        if reused and answer.status == NO_ANSWER and answer.fault != "late":
            # The server may end an idle connection at any moment.
            answer = await self._exchange(raw, method, timeout_s)
        return answer

    async def close(self) -> None:
        """Ends the connection, if there is one."""
        streams, self._streams = self._streams, None
        if streams is not None:
            streams[1].close()
            with suppress(OSError):
                await streams[1].wait_closed()

    async def _exchange(self, raw: bytes, method: bytes, timeout_s: float) -> Answer:
        try:
            async with asyncio.timeout(timeout_s):
                if self._streams is None:
                    parts = urlsplit(self.url)
                    self._streams = await asyncio.open_connection(parts.hostname, parts.port)
                reader, writer = self._streams
                writer.write(raw)
                answer, goes_on = await _read(reader, method)
        except TimeoutError:
            await self.close()
            return Answer(NO_ANSWER, fault="late")
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError) as error:
            await self.close()
            return Answer(NO_ANSWER, fault=f"{type(error).__name__}: {error}"[:200])
        if not goes_on or b"HTTP/1.0" in raw[: raw.find(b"\r\n")] or b"\nconnection:" in raw.lower():
            await self.close()
        return answer


async def _read(reader: asyncio.StreamReader, method: bytes) -> tuple[Answer, bool]:
    """The answer, and whether the connection may serve another request."""
    while True:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        status = int(head[0].split(" ", 2)[1])
        if status >= 200:
            break
    headers = tuple((name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in head[1:-2]))
    given = dict(headers)
    goes_on = given.get("connection", "").lower() != "close"
    if method == b"HEAD" or status in (204, 304):
        return Answer(status, headers), goes_on
    if given.get("transfer-encoding", "").lower() == "chunked":
        return Answer(status, headers, await _chunks(reader)), goes_on
    if (length := given.get("content-length")) is not None:
        return Answer(status, headers, await reader.readexactly(int(length))), goes_on
    return Answer(status, headers, await reader.read()), False


async def _chunks(reader: asyncio.StreamReader) -> bytes:
    body = b""
    while size := int((await reader.readuntil(b"\r\n")).partition(b";")[0], 16):
        body += await reader.readexactly(size)
        await reader.readexactly(2)
    while (await reader.readuntil(b"\r\n")) != b"\r\n":
        pass
    return body
