"""How much of the cluster's answers the proxy holds: one bound on all that it reads whole, whoever asked for it."""

import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import aiohttp

from bridge.proxy.transport.passthrough import aside

_GZIP_OR_ZLIB = 47
"""zlib's name for either header: HTTP calls the second one deflate."""


class AnswerMemory:
    """Memory of `limit` bytes for the answers that are read whole, of which each answer has a share from its first
    byte until the client has it."""

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
    """What one answer holds."""

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
        """The whole body of an answer; None if it does not fit, and then `begun` is what was read of it.

        Raises:
            aiohttp.ClientError: it broke off.
        """
        # Elasticsearch does not say the length beforehand.
        announced = answer.content_length or 0
        if not self.fits(announced):
            return None
        self.hold(announced)
        body = bytearray()
        async for chunk in answer.content.iter_any():
            body += chunk
            if len(body) > announced:
                if not self.fits(len(body)):
                    self.begun = bytes(body)
                    return None
                self.hold(len(body))
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
