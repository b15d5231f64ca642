"""Where documents come from: files, stdin, or any Python iterable.

A source yields, in a fixed order, one item per document: the `Document`, or an `Unreadable` where the
source holds something that is none. Nothing is skipped silently, so items can be counted, and a run that
was stopped goes on after the items that it answered for.
"""

import glob
import gzip
import io
import sys
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol, cast

from bridge.errors import UsageError
from bridge.passages import field_texts, value_at
from bridge.records import Document, SourcePosition
from ingest.json_objects import JsonProblem, parse_object, without_key

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

STDIN = "-"

MAX_EXPANDED_BYTES = 100_000_000_000
"""A compressed file that holds more is taken for a bomb."""

_BOM = b"\xef\xbb\xbf"
_GZIP = b"\x1f\x8b"
_ZSTD = b"\x28\xb5\x2f\xfd"
_JSON_SPACE = b" \t\r\n"
_SAMPLE_BYTES = 2_000
_READ_BYTES = 1 << 20
_MAX_ID_BYTES = 512
"""OpenSearch refuses longer ids."""

_METADATA_ID = "_id"
"""A metadata field: OpenSearch takes it beside a document and refuses it inside."""


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Something in the source that is no document: what becomes a dead letter.

    `raw` is what was there, or its beginning where it is too long to keep; `doc_id` where it has one.
    """

    position: SourcePosition
    kind: str
    reason: str
    raw: bytes
    doc_id: str | None = None


SourceItem = Document | Unreadable


class Source(Protocol):
    """What the pipeline reads."""

    identity: str
    """Changes whenever the items or their order may have: a checkpoint is bound to it."""

    resumable: bool
    """Whether the same items come in the same order when it is read again."""

    def items(self, skip: int = 0) -> Iterator[SourceItem]:
        """The items after the first `skip`.

        Raises:
            UsageError: the source does not exist or cannot be read.
        """

    def total(self) -> int | None:
        """How many items there are, where that is known without reading them all."""


@dataclass(frozen=True, slots=True)
class FieldChoice:
    """Which fields of a JSON object are what: `text_fields` (dots for objects) in the profile's order;
    `id_field`; `routing_field`, where documents are routed."""

    text_fields: Sequence[str]
    id_field: str = _METADATA_ID
    routing_field: str | None = None


class DocumentsInMemory:
    """Documents that Python already holds."""

    resumable = False

    def __init__(self, documents: Sequence[Document], *, identity: str = "memory") -> None:
        """`identity` names the documents in messages."""
        self._documents = documents
        self.identity = identity

    def items(self, skip: int = 0) -> Iterator[SourceItem]:
        """See `Source`."""
        return iter(self._documents[skip:])

    def total(self) -> int:
        """See `Source`."""
        return len(self._documents)


class JsonLines:
    """Files with one JSON object per line, plain or gzip, or stdin (`-`).

    A byte order mark, CRLF, blank lines and a missing final newline are accepted. The bytes of an object
    reach `Document.body` as they are; only an id that stands in `_id` is taken out, since OpenSearch
    refuses it there.
    """

    def __init__(
        self,
        patterns: Sequence[str],
        fields: FieldChoice,
        *,
        max_doc_bytes: int,
        max_expanded_bytes: int = MAX_EXPANDED_BYTES,
    ) -> None:
        """`patterns` are paths, globs or `-`, read in that order, a glob's files sorted by name. No file may
        grow beyond `max_expanded_bytes` when it is decompressed.

        Raises:
            UsageError: a path does not exist, is a folder, or a glob matches nothing.
        """
        self._fields = fields
        self._max_doc_bytes = max_doc_bytes
        self._max_expanded_bytes = max_expanded_bytes
        self._paths = [path for pattern in patterns for path in _expand(pattern)]
        self.resumable = STDIN not in self._paths
        self.identity = "; ".join(_file_identity(path) for path in self._paths)

    def items(self, skip: int = 0) -> Iterator[SourceItem]:
        """See `Source`."""
        remaining = skip
        for path in self._paths:
            name = "stdin" if path == STDIN else path
            with _opened(path, self._max_expanded_bytes) as stream:
                for number, line in _lines(path, stream, self._max_doc_bytes):
                    if remaining:
                        remaining -= 1
                        continue
                    yield self._item(SourcePosition(name, number), line)

    def total(self) -> int | None:
        """See `Source`; lines are not counted ahead."""
        return None

    def _item(self, position: SourcePosition, line: bytes) -> SourceItem:
        if len(line) > self._max_doc_bytes:
            return Unreadable(
                position,
                "document_too_large",
                f"the line is longer than ingest.max_doc_bytes ({self._max_doc_bytes:,})",
                line[:_SAMPLE_BYTES],
            )
        return document_from_json(line, position, self._fields)


def document_from_json(body: bytes, position: SourcePosition, fields: FieldChoice) -> SourceItem:
    """Reads one JSON object as a document."""
    try:
        values = parse_object(body)
        doc_id = _identifier(values, fields.id_field)
        routed = fields.routing_field is not None and value_at(values, fields.routing_field) is not None
        routing = _identifier(values, fields.routing_field) if fields.routing_field and routed else None
    except JsonProblem as problem:
        return Unreadable(position, problem.kind, str(problem), body)
    texts = field_texts(values, fields.text_fields)
    if fields.id_field == _METADATA_ID:
        body = without_key(body, _METADATA_ID)
    return Document(doc_id, body, texts, position, routing)


def _identifier(values: Mapping[str, Any], field: str) -> str:
    value = value_at(values, field)
    if value is None:
        raise JsonProblem("invalid_id", f"field {field} is missing: ids are never made up, name the field that has it")
    # Numbers come here as they were written: see `parse_object`.
    if not isinstance(value, str):
        raise JsonProblem("invalid_id", f"field {field} is neither text nor number")
    if not value:
        raise JsonProblem("invalid_id", f"field {field} is empty: every document needs an id of its own")
    if (length := len(value.encode())) > _MAX_ID_BYTES:
        raise JsonProblem("invalid_id", f"field {field} has {length} bytes, OpenSearch allows {_MAX_ID_BYTES}")
    return value


def _expand(pattern: str) -> list[str]:
    """The files that a path, a glob or `-` names."""
    if pattern == STDIN:
        return [STDIN]
    if glob.has_magic(pattern) and not Path(pattern).exists():
        found = sorted(path for path in glob.glob(pattern, recursive=True) if Path(path).is_file())
        if not found:
            raise UsageError(f"no file matches {pattern}: check the pattern, and that the shell left it alone")
        return found
    if not Path(pattern).exists():
        raise UsageError(f"source file {pattern} does not exist")
    if Path(pattern).is_dir():
        raise UsageError(f"source {pattern} is a folder: name its files, for example {pattern.rstrip('/')}/*.jsonl")
    return [pattern]


def _file_identity(path: str) -> str:
    if path == STDIN:
        return "stdin"
    state = Path(path).stat()
    return f"{Path(path).resolve()} ({state.st_size} bytes, changed {state.st_mtime_ns})"


@contextmanager
def _opened(path: str, max_expanded_bytes: int) -> Iterator[BinaryIO]:
    """The file's bytes, decompressed."""
    if path == STDIN:
        yield sys.stdin.buffer
        return
    try:
        stream = Path(path).open("rb")  # noqa: SIM115 (closed below; errors of later reads are others)
    except OSError as error:
        raise UsageError(f"source file {path} cannot be read: {error.strerror}") from error
    with stream:
        magic = stream.peek(4)[:4]
        if magic.startswith(_GZIP):
            with gzip.GzipFile(fileobj=stream) as expanded:
                bounded = _Bounded(path, expanded, max_expanded_bytes)
                yield cast(BinaryIO, io.BufferedReader(bounded, _READ_BYTES))
        elif magic == _ZSTD:
            raise UsageError(f"source file {path} is compressed by zstd: `zstd -dc {path} | neural-bridge ingest … -`")
        else:
            yield stream


class _Bounded(io.RawIOBase):
    """What a decompressor gives, up to a limit: a few megabytes can hold terabytes of nothing."""

    def __init__(self, path: str, expanded: gzip.GzipFile, max_bytes: int) -> None:
        self._path = path
        self._expanded = expanded
        self._max_bytes = max_bytes
        self._left = max_bytes

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "WriteableBuffer", /) -> int:
        count = self._expanded.readinto(buffer)
        self._left -= count
        if self._left < 0:
            raise UsageError(
                f"source file {self._path} grows beyond {self._max_bytes:,} bytes when it is decompressed: raise "
                f"--max-expanded-bytes if that is right"
            )
        return count


def _lines(path: str, stream: BinaryIO, max_bytes: int) -> Iterator[tuple[int, bytes]]:
    """Lines that are not blank, with their numbers (first is 1), without surrounding white space.

    Of a line longer than `max_bytes` only so much that it can be told is given.
    """
    number = 0
    try:
        while line := stream.readline(max_bytes + 2):
            number += 1
            if len(line) > max_bytes and not line.endswith(b"\n"):
                while (rest := stream.readline(_READ_BYTES)) and not rest.endswith(b"\n"):
                    pass
            if number == 1:
                line = line.removeprefix(_BOM)
            if stripped := line.strip(_JSON_SPACE):
                yield number, stripped
    except (OSError, EOFError, zlib.error) as error:
        raise UsageError(
            f"source file {path} cannot be read on after line {number} ({error}): it is damaged or cut off; what "
            f"was read before is written"
        ) from error
