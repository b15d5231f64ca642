"""The bytes of a source, decompressed where they are compressed, and never more of them than allowed."""

import gzip
import io
import sys
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from bridge.errors import UsageError

if sys.version_info >= (3, 14):
    from compression import zstd as zstd
else:
    from backports import zstd as zstd

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

Peekable: TypeAlias = "io.BufferedReader[Any]"

READ_BYTES = 1 << 20

_GZIP = b"\x1f\x8b"
_ZSTD = b"\x28\xb5\x2f\xfd"


class ByteStream(Protocol):
    """What can be read into a buffer."""

    def readinto(self, buffer: "WriteableBuffer", /) -> int | None:
        """Reads some bytes; 0 at the end."""


@contextmanager
def decompressed(name: str, stream: ByteStream, *, max_bytes: int) -> Iterator[Peekable]:
    """What a stream holds, decompressed by what its first bytes say: gzip, zstd, or nothing.

    Errors of reading, also later ones, are `UsageError`s with the source's `name`: the stream breaks off, is
    damaged, or grows beyond `max_bytes` when it is decompressed (a few megabytes can hold terabytes of nothing).
    """
    plain = io.BufferedReader(_Checked(name, stream, max_bytes=None), READ_BYTES)
    with ExitStack() as opened:
        expanded: ByteStream
        magic = plain.peek(4)[:4]
        if magic.startswith(_GZIP):
            expanded = opened.enter_context(gzip.GzipFile(fileobj=plain))
        elif magic == _ZSTD:
            expanded = opened.enter_context(zstd.ZstdFile(plain))
        else:
            yield plain
            return
        yield io.BufferedReader(_Checked(name, expanded, max_bytes=max_bytes), READ_BYTES)


class _Checked(io.RawIOBase):
    """Passes bytes on and counts them; errors become ours here, whoever reads."""

    def __init__(self, name: str, stream: ByteStream, *, max_bytes: int | None) -> None:
        self._name = name
        # A pipe gives what it has: waiting for a full buffer would hold back what a slow producer sent.
        self._readinto = getattr(stream, "readinto1", stream.readinto)
        self._max_bytes = max_bytes
        self._read = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "WriteableBuffer", /) -> int:
        try:
            count: int = self._readinto(buffer) or 0
        except (OSError, EOFError, zlib.error, zstd.ZstdError) as error:
            raise UsageError(
                f"source {self._name} cannot be read on after {self._read:,} bytes ({error}): it is damaged or cut "
                f"off; what was read before is written"
            ) from error
        self._read += count
        if self._max_bytes is not None and self._read > self._max_bytes:
            raise UsageError(
                f"source {self._name} grows beyond {self._max_bytes:,} bytes when it is decompressed: raise "
                f"--max-expanded-bytes if that is right"
            )
        return count
