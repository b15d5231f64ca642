"""A request to the cluster and its answer to the client: streamed both ways and unchanged, or read whole within one
bound on what all of them hold."""

import asyncio
import functools
import zlib
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TypeVar

import aiohttp
from aiohttp import hdrs, web
from aiohttp.abc import AbstractStreamWriter
from multidict import CIMultiDict

from bridge.http_deadlines import SlowClient, body_chunks
from bridge.proxy.transport import elasticsearch_clients, headers
from bridge.proxy.transport.refusals import Refused
from bridge.proxy.transport.upstream import SAFE_HEADERS_BYTES, Upstream
from bridge.settings import ProxySettings

# Answers up to this size are read whole first: one packet to the client, and an answer that breaks off
# becomes an error instead of a broken connection.
SMALL_ANSWER_BYTES = 64 * 1024

PART_BYTES = 64 * 1024
"""Of an answer that a client has to take in one turn."""

ELASTICSEARCH_ACCEPT = web.RequestKey("ELASTICSEARCH_ACCEPT", str)
"""What a client accepts that is treated as one of Elasticsearch's; absent if none is."""

WANTS_TYPES = web.RequestKey("WANTS_TYPES", bool)
"""Whether the client is one of Elasticsearch 7; absent where no client is treated so."""

_GZIP_OR_ZLIB = 47
"""zlib's name for either header: HTTP calls the second one deflate."""
_GZIP = 31  # zlib's name for "with a gzip header"
_FAST = 1  # of zlib's levels: answers are large and soon forgotten

T = TypeVar("T")

Body = bytes | AsyncIterator[bytes] | None
"""A request's body: none, read, or still arriving."""


@dataclass(frozen=True, slots=True)
class Inbound:
    """A client's request as it goes to the cluster: `target` is path and query, byte for byte."""

    method: str
    target: str
    headers: CIMultiDict[str]
    body: Body

    @property
    def repeatable(self) -> bool:
        """Whether a second sending can neither write twice nor move a cursor on."""
        reads = self.method in ("GET", "HEAD")
        return reads and self.body is None and "scroll" not in self.target


def inbound(request: web.BaseRequest, settings: ProxySettings) -> Inbound:
    """Reads the request line and headers; the body is still arriving.

    Raises:
        Refused: the request may not be forwarded as it is.
    """
    if request.method == hdrs.METH_CONNECT:
        raise Refused(405, "illegal_argument_exception", "method CONNECT: neural-bridge opens no tunnels")
    if request.version < (1, 1) and hdrs.TRANSFER_ENCODING in request.headers:
        raise Refused(
            400, "illegal_argument_exception", "Transfer-Encoding with HTTP/1.0: send Content-Length or use HTTP/1.1"
        )
    if any(value.strip().lower() != "chunked" for value in request.headers.getall(hdrs.TRANSFER_ENCODING, ())):
        raise Refused(
            501, "illegal_argument_exception", "Transfer-Encoding: neural-bridge knows chunked alone: send no other"
        )
    expected = request.headers.get(hdrs.EXPECT)
    if expected is not None and expected.lower() != "100-continue":
        raise Refused(417, "illegal_argument_exception", f"Expect: {expected} is unknown; 100-continue is known")
    sent_on = headers.forwarded(request.headers, client_address=request.remote, settings=settings)
    if settings.es_compat:
        request[ELASTICSEARCH_ACCEPT] = request.headers.get(hdrs.ACCEPT, "")
        request[WANTS_TYPES] = elasticsearch_clients.wants_types(request.headers)
        sent_on = elasticsearch_clients.with_plain_media_types(sent_on)
    return Inbound(
        method=request.method,
        target=_without_prefix(_raw_target(request), settings.path_prefix),
        headers=sent_on,
        body=body_chunks(request, idle_timeout_s=settings.body_idle_timeout_s) if request.body_exists else None,
    )


async def check_headers(request: web.BaseRequest, settings: ProxySettings, upstream: Upstream) -> None:
    """Checks that a node will read the request's headers: one that does not answers, and reads nothing more.

    Raises:
        Refused: 431; together they are too long.
    """
    size = sum(len(name) + len(value) + 4 for name, value in request.raw_headers)
    limit = settings.max_headers_bytes or SAFE_HEADERS_BYTES
    if size > limit and settings.max_headers_bytes is None:
        limit = await upstream.max_headers_bytes()
    if size > limit:
        raise Refused(
            431,
            "too_long_http_header_exception",
            f"the headers together have {size} bytes, more than proxy.max_headers_bytes ({limit}): send fewer cookies "
            "or shorter credentials, or raise it together with the nodes' http.max_header_size",
        )


def _raw_target(request: web.BaseRequest) -> str:
    """The target as it came: the parser was fed an escaped form of bytes beyond ASCII."""
    raw_targets: dict[str, str] = getattr(request.protocol, "raw_targets", {})
    return raw_targets.pop(request.raw_path, request.raw_path)


def _without_prefix(target: str, prefix: str) -> str:
    """The target as the cluster knows it; one without the prefix is the cluster's already."""
    rest = target.removeprefix(prefix)
    if rest is target or rest[:1] not in ("", "/", "?"):
        return target
    return rest if rest.startswith("/") else f"/{rest}"


def invite_body(request: web.BaseRequest) -> None:
    """Tells a client that waits for `100 Continue` to send its body."""
    if hdrs.EXPECT in request.headers and request.transport is not None:
        request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")


async def send(upstream: Upstream, inbound: Inbound, *, repeatable: bool | None = None) -> aiohttp.ClientResponse:
    """Sends the request, once more if it is repeatable and the connection broke before an answer.

    `repeatable` overrides what the request line says: a search whose body is at hand may be repeated.

    Raises:
        Refused: see `Upstream.send`; 400 if the client's body is malformed or broke off, 408 if
            it came too slowly.
    """
    again = inbound.repeatable if repeatable is None else repeatable
    try:
        return await upstream.send(inbound.method, inbound.target, inbound.headers, inbound.body, repeatable=again)
    except Refused as refused:
        fault = _fault_of_the_body(refused)
        if isinstance(fault, SlowClient):
            raise Refused(408, "request_timeout_exception", str(fault)) from fault
        if fault is not None:
            raise Refused(400, "illegal_argument_exception", f"the request's body broke off: {fault}") from fault
        raise


def _fault_of_the_body(refused: Refused) -> BaseException | None:
    """What was wrong with the client's own sending, if that broke the request to the cluster."""
    cause: BaseException | None = refused
    while cause is not None:
        if isinstance(cause, SlowClient | web.RequestPayloadError):
            return cause
        cause = cause.__cause__
    return None


async def relay(
    request: web.BaseRequest, answer: aiohttp.ClientResponse, marks: Mapping[str, str], *, begun: bytes = b""
) -> web.StreamResponse:
    """Gives the cluster's answer to the client; `marks` are headers of ours to add, `begun` is what was read of its
    body.

    When the cluster breaks off in the middle of a large answer, the client's connection is broken too,
    so that half an answer cannot be taken for a whole one.

    Raises:
        Refused: 502; the answer broke off before anything was sent.
    """
    try:
        response = RelayedResponse(answer.status, answer.reason, headers.answered(answer.headers), marks)
        length = answer.content_length
        if length is not None and length <= SMALL_ANSWER_BYTES:
            try:
                body = begun + await answer.read()
            except aiohttp.ClientError as error:
                raise Refused(
                    502, "cluster_connection_exception", f"the cluster's answer broke off: {error}"
                ) from error
            await response.prepare(request)
            await _write(response, body)
        else:
            await response.prepare(request)
            try:
                await _write(response, begun)
                async for chunk in answer.content.iter_any():
                    await response.write(chunk)
            except aiohttp.ClientError:
                if request.transport is not None:
                    request.transport.abort()
                raise ConnectionAbortedError("the cluster's answer broke off") from None
        await _end(request, response)
    except BaseException:
        # Also on cancellation: closing the connection cancels the cluster's work for a client that left.
        answer.close()
        raise
    answer.release()
    return response


async def relay_body(
    request: web.BaseRequest, answer: aiohttp.ClientResponse, body: bytes, marks: Mapping[str, str]
) -> web.StreamResponse:
    """Gives the client the cluster's status and headers with another body, compressed for a client that accepts gzip
    as the cluster compresses; `marks` are headers of ours to add."""
    kept = headers.answered(answer.headers)
    kept.popall(hdrs.CONTENT_ENCODING, None)
    if headers.accepts_gzip(request.headers):
        body = await aside(len(body), functools.partial(_compressed, body))
        kept[hdrs.CONTENT_ENCODING] = "gzip"
    kept[hdrs.CONTENT_LENGTH] = str(len(body))
    response = RelayedResponse(answer.status, answer.reason, kept, marks)
    await response.prepare(request)
    await _write(response, body)
    await _end(request, response)
    return response


async def aside(n_bytes: int, compute: Callable[[], T]) -> T:
    """`compute()`; in a thread if it goes through so many bytes that others would have to wait for it."""
    return compute() if n_bytes <= PART_BYTES else await asyncio.to_thread(compute)


class AnswerMemory:
    """Memory of `limit` bytes for the requests and answers that are read whole, of which each has a share from its
    first byte until the client has the answer."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.held = 0

    @contextmanager
    def share(self) -> Iterator["Share"]:
        """A share for the length of the block, empty at first."""
        share = Share(self)
        try:
            yield share
        finally:
            share.hold(0)

    @property
    def free(self) -> int:
        """Bytes that nobody holds."""
        return self._limit - self.held


class Share:
    """What one request, or one answer, holds."""

    def __init__(self, memory: AnswerMemory) -> None:
        self._memory = memory
        self._held = 0
        self.begun = b""

    def fits(self, n_bytes: int) -> bool:
        """Whether the share may have so many bytes in all: half of what the others leave, so that a few large answers
        never keep many small ones out."""
        return n_bytes * 2 <= self._memory.free + self._held

    def hold(self, n_bytes: int) -> None:
        """Makes the share so large: the bytes are there already."""
        self._memory.held += n_bytes - self._held
        self._held = n_bytes

    async def read(self, answer: aiohttp.ClientResponse) -> bytes | None:
        """The whole body of an answer; None if it does not fit, and then `begun` is what was read of it. The connection
        is closed if the answer breaks off, or the client that it is for leaves.

        Raises:
            aiohttp.ClientError: it broke off.
        """
        # Elasticsearch does not say the length beforehand.
        announced = answer.content_length or 0
        if not self.fits(announced):
            return None
        self.hold(announced)
        body = bytearray()
        try:
            async for chunk in answer.content.iter_any():
                body += chunk
                if len(body) > announced:
                    if not self.fits(len(body)):
                        self.begun = bytes(body)
                        return None
                    self.hold(len(body))
        except BaseException:
            answer.close()
            raise
        return bytes(body)

    async def unpacked(self, body: bytes, coding: str) -> bytes | None:
        """A body that is held, without its content coding; None if that is not known, or the body does not fit."""
        if coding == "identity":
            return body
        unpacking = zlib.decompressobj(_GZIP_OR_ZLIB)
        room = max(self._memory.free // 2, 1)
        try:
            plain = await aside(len(body), lambda: unpacking.decompress(body, room))
        except zlib.error:
            return None
        if not unpacking.eof or not self.fits(len(body) + len(plain)):
            return None
        self.hold(len(body) + len(plain))
        return plain


def _compressed(body: bytes) -> bytes:
    return zlib.compress(body, _FAST, _GZIP)


async def _write(response: web.StreamResponse, body: bytes) -> None:
    """Writes a body in parts, so that a client that reads slowly is seen to go on."""
    whole = memoryview(body)
    for start in range(0, len(body), PART_BYTES):
        await response.write(whole[start : start + PART_BYTES])


async def _end(request: web.BaseRequest, response: web.StreamResponse) -> None:
    await response.write_eof()
    # aiohttp leaves small rests to the transport, and nobody would see to them any more.
    await request.writer.drain()


class RelayedResponse(web.StreamResponse):
    """An answer with exactly these headers; aiohttp's server would add some of its own."""

    # Headers wait for the first bytes of the body and share their packet: the client wakes up once, not twice.
    _send_headers_immediately = False

    def __init__(self, status: int, reason: str | None, headers: CIMultiDict[str], marks: Mapping[str, str]) -> None:
        headers.update(marks)
        self._names = frozenset(name.lower() for name in headers)
        super().__init__(status=status, reason=reason, headers=headers)

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Sends the headers, with those that the client's kind wants beside the cluster's."""
        if (accept := request.get(ELASTICSEARCH_ACCEPT)) is not None:
            content_type = self.headers.get(hdrs.CONTENT_TYPE, "")
            self.headers.update(elasticsearch_clients.answer_headers(accept, content_type))
        return await super().prepare(request)

    async def _prepare_headers(self) -> None:
        # The only place where aiohttp adds Date, Server and a default Content-Type.
        await super()._prepare_headers()
        for name in (hdrs.DATE, hdrs.SERVER, hdrs.CONTENT_TYPE):
            if name.lower() not in self._names:
                self.headers.pop(name, None)


async def read_body(inbound: Inbound, share: Share, *, limit: int) -> tuple[Inbound, bytes | None]:
    """The request with its body read, and that body decompressed; None if it is larger than `limit` bytes or does not
    fit, or is compressed in a way that is not known."""
    if inbound.body is None or isinstance(inbound.body, bytes):
        return inbound, inbound.body or b""
    read = bytearray()
    async for chunk in inbound.body:
        read += chunk
        if len(read) > limit or not share.fits(len(read)):
            return replace(inbound, body=_chained(bytes(read), inbound.body)), None
        share.hold(len(read))
    body = bytes(read)
    plain = _decompressed(body, inbound.headers, limit)
    if plain is not None and plain is not body:
        share.hold(len(body) + len(plain))
    return replace(inbound, body=body), plain


def _decompressed(body: bytes, sent: CIMultiDict[str], limit: int) -> bytes | None:
    """The body without its Content-Encoding; None if that is unknown, wrong, or beyond the limit."""
    encoding = sent.get(hdrs.CONTENT_ENCODING, "identity").strip().lower()
    if encoding == "identity":
        return body
    if encoding != "gzip":
        return None
    unpacking = zlib.decompressobj(_GZIP)
    try:
        unpacked = unpacking.decompress(body, limit)
    except zlib.error:
        return None
    return unpacked if unpacking.eof and not unpacking.unused_data else None


async def _chained(read: bytes, rest: Body) -> AsyncIterator[bytes]:
    yield read
    if rest is not None and not isinstance(rest, bytes):
        async for chunk in rest:
            yield chunk
