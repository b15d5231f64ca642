"""Which files a path, a glob, a URL or `-` names, and their bytes: read as a stream and decompressed.

URLs (`s3://`, `gs://`, `abfss://`, `file://`) are opened by pyarrow. Credentials come from where each store's own
tools look for them (environment, profile, instance role), or from the URL's query string as pyarrow documents it,
such as `?endpoint_override=` of an S3-like store.
"""

import glob
import gzip
import io
import sys
import zlib
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias
from urllib.parse import quote

from bridge.errors import UsageError
from bridge.settings import masked, without_secrets

if sys.version_info >= (3, 14):
    from compression import zstd as zstd
else:
    from backports import zstd as zstd

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

Peekable: TypeAlias = "io.BufferedReader[Any]"

_GZIP = b"\x1f\x8b"
_ZSTD = b"\x28\xb5\x2f\xfd"

STDIN = "-"

_SCHEME = "://"

READ_BYTES = 1 << 20


class ByteStream(Protocol):
    """A stream that can be read into a buffer."""

    def readinto(self, buffer: "WriteableBuffer", /) -> int | None:
        """Reads some bytes; 0 at the end."""


def pyarrow_missing() -> UsageError:
    """The error that tells how to install pyarrow, an optional package."""
    return UsageError(
        "URLs and Parquet files need pyarrow, which is not installed: pip install 'opensearch-neural-bridge[parquet]'"
    )


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file to read. `path` (a path, a URL or `-`) names it alone, `name` is for messages, `identity` changes
    whenever its content may have changed; None if it can be read only once."""

    path: str
    name: str
    identity: str | None

    def open(self) -> AbstractContextManager[Any]:
        """The file's bytes as they are.

        Raises:
            OSError: the file cannot be opened.
        """
        if self.path == STDIN:
            return nullcontext(sys.stdin.buffer)
        if _SCHEME in self.path:
            store, path = _fs().FileSystem.from_uri(self.path)
            opened: AbstractContextManager[Any] = store.open_input_file(path)
            return opened
        return Path(self.path).open("rb")


def source_files(patterns: Sequence[str]) -> list[SourceFile]:
    """The files that `patterns` name, in that order; a glob's files sorted by name.

    Raises:
        UsageError: a file does not exist, is a folder, cannot be reached, or a glob matches nothing.
    """
    return [file for pattern in patterns for file in _matching(pattern)]


@contextmanager
def decompressed(name: str, stream: ByteStream, *, max_bytes: int) -> Iterator[Peekable]:
    """The content of a stream, decompressed if it begins as gzip or zstd does.

    Errors of reading, also later ones, are `UsageError`s with the source's `name`: the stream breaks off, is
    damaged, or grows beyond `max_bytes` when it is decompressed (a few megabytes can expand to terabytes).
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


def _matching(pattern: str) -> Iterator[SourceFile]:
    if pattern == STDIN:
        yield SourceFile(STDIN, "stdin", None)
    elif _SCHEME in pattern:
        yield from _stored(pattern)
    elif glob.has_magic(pattern) and not Path(pattern).exists():
        found = sorted(path for path in glob.glob(pattern, recursive=True) if Path(path).is_file())
        if not found:
            raise UsageError(f"no file matches {pattern}: check the pattern, and that the shell left it alone")
        yield from map(_local, found)
    elif not Path(pattern).exists():
        raise UsageError(f"source file {pattern} does not exist")
    elif Path(pattern).is_dir():
        raise UsageError(f"source {pattern} is a folder: name its files, for example {pattern.rstrip('/')}/*.jsonl")
    else:
        yield _local(pattern)


def _local(path: str) -> SourceFile:
    state = Path(path).stat()
    return SourceFile(path, path, f"{Path(path).resolve()} ({state.st_size} bytes, changed {state.st_mtime_ns})")


def _stored(url: str) -> Iterator[SourceFile]:
    """The files of a store that a URL names; `*` stands for any part of a file's name."""
    fs = _fs()
    address, _, query = url.partition("?")
    try:
        store, path = fs.FileSystem.from_uri(url)
        folder, _, name = path.rpartition("/")
        infos = store.get_file_info(fs.FileSelector(folder) if "*" in name else [path])
    except (OSError, ValueError) as error:
        cause = without_secrets(str(error), url)
        raise UsageError(f"source {masked(address)} cannot be reached: {cause}") from error
    files = [info for info in infos if info.type is fs.FileType.File]
    if "*" in name:
        files = sorted((info for info in files if fnmatchcase(info.base_name, name)), key=lambda info: info.path)
    if not files:
        raise UsageError(f"source {masked(address)} names no file: give a file's URL, or a pattern of its name")
    for info in files:
        its_url = f"{address.rpartition('/')[0]}/{quote(info.base_name)}" + (f"?{query}" if query else "")
        its_name = f"{store.type_name}://{info.path.lstrip('/')}"
        yield SourceFile(its_url, its_name, f"{its_name} ({info.size} bytes, changed {info.mtime_ns})")


def _fs() -> Any:
    try:
        from pyarrow import fs  # an optional package, which takes a while to import
    except ImportError as missing:
        raise pyarrow_missing() from missing
    return fs


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
