"""The body of a search: read whole, so that it can be understood, and sent on as it came."""

import zlib
from collections.abc import AsyncIterator
from dataclasses import replace

from aiohttp import hdrs
from multidict import CIMultiDict

from bridge.proxy.transport.passthrough import Body, Inbound

_GZIP = 31  # zlib's name for "with a gzip header"


async def read_body(asked: Inbound, *, limit: int) -> tuple[Inbound, bytes | None]:
    """The request with its body read, and that body decompressed; None where it is larger than `limit` bytes, or
    compressed in a way that is not known."""
    if asked.body is None or isinstance(asked.body, bytes):
        return asked, asked.body or b""
    read = bytearray()
    async for chunk in asked.body:
        read += chunk
        if len(read) > limit:
            return replace(asked, body=_chained(bytes(read), asked.body)), None
    body = bytes(read)
    return replace(asked, body=body), _decompressed(body, asked.headers, limit)


def _decompressed(body: bytes, given: CIMultiDict[str], limit: int) -> bytes | None:
    """The body without its Content-Encoding; None where that is unknown, wrong, or beyond the limit."""
    encoding = given.get(hdrs.CONTENT_ENCODING, "identity").strip().lower()
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
