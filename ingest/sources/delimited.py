"""CSV and TSV as JSON objects: a heading with the fields' names, then a row per document.

Cells are texts, since the format knows nothing else; columns that are named as numbers become numbers, digit
by digit as they were written. An empty cell is a field that the document lacks.

Rows are read as RFC 4180 has them, and as Python's csv does if it is strict; that has one limit on the length of a cell
for the whole process, which other libraries rely on.
"""

import re
from collections.abc import Collection, Iterator, Sequence
from typing import BinaryIO

import msgspec

from bridge.errors import UsageError
from bridge.records import SourcePosition
from ingest.sources.json_bytes import BOM, Entry
from ingest.sources.source import SAMPLE_BYTES, Unreadable

_NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?", re.ASCII)
"""RFC 8259, section 6."""

_encode = msgspec.json.Encoder().encode


def row_entries(
    name: str, stream: BinaryIO, *, delimiter: str, numbers: Collection[str], max_bytes: int
) -> Iterator[Entry | Unreadable]:
    """The rows of a file, numbered by the line on which they begin; cells may hold line breaks.

    Raises:
        UsageError: the heading is missing or names a column twice or not at all, `numbers` names no column, or a
            line or cell is longer than `max_bytes`.
    """
    physical = _Lines(name, stream, max_bytes)
    lines = iter(physical)
    try:
        heading = _heading(name, _row(lines, delimiter, max_bytes) or [], numbers)
    except _RowProblem as problem:
        raise UsageError(f"source {name}: the heading cannot be read: {problem}") from problem
    keys = [(_encode(column) + b":", column in numbers) for column in heading]
    while True:
        position = SourcePosition(name, physical.read + 1)
        physical.since.clear()
        try:
            row = _row(lines, delimiter, max_bytes)
            if row is None:
                return
            if row:
                yield Entry(position, _object(keys, row))
        except _CellTooLong as problem:
            raise UsageError(
                f"source {name}: a cell that begins at line {position.offset} is longer than ingest.max_doc_bytes "
                f"({max_bytes:,}): close its quotes, or raise the limit"
            ) from problem
        except _RowProblem as problem:
            raw = b"".join(physical.since)[:SAMPLE_BYTES]
            yield Unreadable(position, "invalid_row", f"the row cannot be read: {problem}", raw)


class _RowProblem(Exception):
    """Why a row is no document."""


class _CellTooLong(_RowProblem):
    """A cell, within quotes, goes on beyond the limit."""


class _Lines:
    """Lines as text; `since` holds the bytes of those that were read for the row at hand, `read` counts all."""

    def __init__(self, name: str, stream: BinaryIO, max_bytes: int) -> None:
        self._name = name
        self._stream = stream
        self._max_bytes = max_bytes
        self.read = 0
        self.since: list[bytes] = []

    def __iter__(self) -> Iterator[str]:
        while line := self._stream.readline(self._max_bytes + 2):
            self.read += 1
            if len(line) > self._max_bytes:
                raise UsageError(
                    f"source {self._name}: line {self.read} is longer than ingest.max_doc_bytes "
                    f"({self._max_bytes:,}): raise it"
                )
            self.since.append(line)
            if self.read == 1:
                line = line.removeprefix(BOM)
            # What is no UTF-8 is found when the row is made, so that only that row suffers.
            yield line.decode(errors="surrogateescape")


def _row(lines: Iterator[str], delimiter: str, max_chars: int) -> list[str] | None:
    """The cells of the next row: none of an empty line; None at the end."""
    if (line := next(lines, None)) is None:
        return None
    cells: list[str] = []
    at = 0
    while True:
        if line.startswith('"', at):
            cell, line, at = _quoted(line, at + 1, lines, max_chars)
        else:
            end = line.find(delimiter, at)
            cell = line[at:] if end < 0 else line[at:end]
            at += len(cell)
            cell = cell.rstrip("\r\n") if end < 0 else cell
            if "\r" in cell:
                raise _RowProblem("a carriage return stands in a cell without quotes")
        cells.append(cell)
        if line.startswith(delimiter, at):
            at += len(delimiter)
        elif line[at:].strip("\r\n"):
            raise _RowProblem(f"a quoted cell goes on after its end: {line[at:][:50]!r}")
        else:
            return cells if cells != [""] or line.startswith('"') else []


def _quoted(line: str, at: int, lines: Iterator[str], max_chars: int) -> tuple[str, str, int]:
    """The cell whose quote opens before `at`; the line on which it closes, and where that goes on."""
    parts: list[str] = []
    n_chars = 0
    while True:
        end = line.find('"', at)
        parts.append(line[at:] if end < 0 else line[at:end])
        n_chars += len(parts[-1])
        if n_chars > max_chars:
            raise _CellTooLong("a cell is longer than ingest.max_doc_bytes")
        if end < 0:
            if (following := next(lines, None)) is None:
                raise _RowProblem("a quote is never closed")
            line, at = following, 0
        elif line.startswith('"', end + 1):
            parts.append('"')
            at = end + 2
        else:
            return "".join(parts), line, end + 1


def _heading(name: str, heading: Sequence[str], numbers: Collection[str]) -> Sequence[str]:
    twice = sorted({column for column in heading if heading.count(column) > 1})
    if "" in heading or twice:
        named = f"column {heading.index('') + 1} no name" if "" in heading else f"several columns the name {twice[0]}"
        raise UsageError(f"source {name}: the heading gives {named}: expected one name of its own for each column")
    if heading and (unknown := sorted(set(numbers) - set(heading))):
        raise UsageError(f"source {name} has no column {', '.join(unknown)}; its columns: {', '.join(heading)}")
    return heading


def _object(keys: Sequence[tuple[bytes, bool]], row: Sequence[str]) -> bytes:
    if len(row) != len(keys):
        raise _RowProblem(f"{len(row)} cells under a heading of {len(keys)}")
    members = []
    for (key, is_number), cell in zip(keys, row, strict=True):
        if not cell:
            continue
        if is_number and not _NUMBER.fullmatch(cell):
            raise _RowProblem(f"{cell[:50]!r} is no JSON number")
        try:
            members.append(key + (cell.encode() if is_number else _encode(cell)))
        except UnicodeEncodeError as error:
            raise _RowProblem("it is not UTF-8") from error
    return b"{" + b",".join(members) + b"}"
