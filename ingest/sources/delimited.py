"""CSV and TSV as JSON objects: a heading with the fields' names, then a row per document.

Cells are texts, since the format knows nothing else; columns that are named as numbers become numbers, digit
by digit as they were written. An empty cell is a field that the document lacks.
"""

import csv
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
            line or row is longer than `max_bytes`.
    """
    # One limit for the whole process: it is only ever raised, since the default of 131,072 is less than documents have.
    csv.field_size_limit(max(max_bytes, csv.field_size_limit()))
    physical = _Lines(name, stream, max_bytes)
    reader = csv.reader(physical, delimiter=delimiter, strict=True)
    heading = _heading(name, reader, numbers)
    keys = [(_encode(column) + b":", column in numbers) for column in heading]
    while True:
        position = SourcePosition(name, reader.line_num + 1)
        physical.begin_row()
        try:
            row = next(reader)
            if row:
                yield Entry(position, _object(keys, row))
        except StopIteration:
            return
        except (_RowProblem, csv.Error) as problem:
            raw = b"".join(physical.since)[:SAMPLE_BYTES]
            yield Unreadable(position, "invalid_row", f"the row cannot be read: {problem}", raw)


class _RowProblem(Exception):
    """Why a row is no document."""


class _Lines:
    """Lines as text; `since` holds the bytes of those that were read for the row at hand."""

    def __init__(self, name: str, stream: BinaryIO, max_bytes: int) -> None:
        self._name = name
        self._stream = stream
        self._max_bytes = max_bytes
        self._number = 0
        self._row_bytes = 0
        self.since: list[bytes] = []

    def begin_row(self) -> None:
        self._row_bytes = 0
        self.since.clear()

    def __iter__(self) -> Iterator[str]:
        while line := self._stream.readline(self._max_bytes + 2):
            self._number += 1
            if len(line) > self._max_bytes:
                raise UsageError(
                    f"source {self._name}: line {self._number} is longer than ingest.max_doc_bytes "
                    f"({self._max_bytes:,}): raise it"
                )
            self.since.append(line)
            self._row_bytes += len(line)
            if self._row_bytes > self._max_bytes and len(self.since) > 1:
                raise UsageError(
                    f"source {self._name}: the row that begins at line {self._number - len(self.since) + 1} is longer "
                    f"than ingest.max_doc_bytes ({self._max_bytes:,}): close its quotes, or raise the limit"
                )
            if self._number == 1:
                line = line.removeprefix(BOM)
            # What is no UTF-8 is found when the row is made, so that only that row suffers.
            yield line.decode(errors="surrogateescape")


def _heading(name: str, reader: Iterator[list[str]], numbers: Collection[str]) -> Sequence[str]:
    try:
        heading = next(reader, [])
    except csv.Error as error:
        raise UsageError(f"source {name}: the heading cannot be read: {error}") from error
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
