"""Files cut into splits that several machines read: every document is in exactly one of them.

Plain lines of JSON are cut by bytes: a line belongs to the split in which its first byte lies. Parquet is cut by
its groups of rows. Files of other formats, and compressed ones, are a split each. Positions of documents in
a range of bytes are offsets.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import BinaryIO

from bridge.errors import UsageError
from ingest.sources.compression import READ_BYTES
from ingest.sources.entries import Entry, entries
from ingest.sources.field_choice import FieldChoice
from ingest.sources.file_listing import STDIN, SourceFile, source_files
from ingest.sources.files import MAX_EXPANDED_BYTES, FileDocuments, Format, format_of
from ingest.sources.json_lines import BOM, JSON_SPACE, is_action
from ingest.sources.opening import SourceItem, Unreadable, document_from_json

SPLIT_BYTES = 16_000_000
_FIRST_BYTES = 2_000
_LINE_SUFFIXES = (".jsonl", ".ndjson", ".json")


@dataclass(frozen=True, slots=True)
class WholeFile:
    """The file that `pattern` names alone."""

    pattern: str


@dataclass(frozen=True, slots=True)
class ByteRange:
    """Of a local file the lines that begin in `begin` ≤ byte < `end`."""

    path: str
    begin: int
    end: int


@dataclass(frozen=True, slots=True)
class RowGroup:
    """Of a Parquet file one group of rows, from 0 on."""

    pattern: str
    number: int


Split = WholeFile | ByteRange | RowGroup


class SplitFiles:
    """The documents of files, as splits. A run over them goes in no order, so it is not resumed by position."""

    resumable = False

    def __init__(
        self,
        patterns: Sequence[str],
        fields: FieldChoice,
        *,
        max_doc_bytes: int,
        max_expanded_bytes: int = MAX_EXPANDED_BYTES,
        file_format: Format = "auto",
        split_bytes: int = SPLIT_BYTES,
    ) -> None:
        """`patterns`, `max_expanded_bytes` and `file_format` as of `FileDocuments`; every machine must find the files
        under these names.

        Raises:
            UsageError: a file does not exist or cannot be reached; standard input is named.
        """
        if STDIN in patterns:
            raise UsageError("standard input cannot be read by several machines: name files")
        files = source_files(patterns)
        self._fields = fields
        self._max_doc_bytes = max_doc_bytes
        self._max_expanded_bytes = max_expanded_bytes
        self._format = file_format
        self.identity = "; ".join(file.identity or file.name for file in files)
        self.splits = [split for file in files for split in _splits(file, file_format, split_bytes)]

    def read(self, split: Split) -> Iterator[SourceItem]:
        """The items of one split, the same ones in the same order each time.

        Raises:
            UsageError: the file cannot be read here.
        """
        if isinstance(split, WholeFile):
            whole = FileDocuments(
                [split.pattern],
                self._fields,
                max_doc_bytes=self._max_doc_bytes,
                max_expanded_bytes=self._max_expanded_bytes,
                file_format=self._format,
            )
            yield from whole.items()
            return
        for entry in self._entries(split):
            if isinstance(entry, Unreadable):
                yield entry
            else:
                yield document_from_json(entry.body, entry.position, self._fields)

    def items(self, skip: int = 0) -> Iterator[SourceItem]:
        """See `Source`: one split after the other."""
        return islice(chain.from_iterable(map(self.read, self.splits)), skip, None)

    def total(self) -> int | None:
        """See `Source`; items are not counted ahead."""
        return None

    def _entries(self, split: ByteRange | RowGroup) -> Iterator[Entry | Unreadable]:
        try:
            if isinstance(split, RowGroup):
                from ingest.sources.parquet import parquet_entries  # pyarrow is an optional package, and takes a while

                [file] = source_files([split.pattern])
                with file.open() as content:
                    yield from parquet_entries(file.name, content, self._max_doc_bytes, row_group=split.number)
            else:
                with Path(split.path).open("rb") as stream:
                    numbered = _lines_between(stream, split.begin, split.end, self._max_doc_bytes)
                    yield from entries(split.path, numbered, self._max_doc_bytes)
        except OSError as error:
            raise UsageError(f"a source file cannot be read ({split}): {error.strerror or error}") from error


def _splits(file: SourceFile, asked: Format, split_bytes: int) -> Iterator[Split]:
    file_format = format_of(file.name, asked)
    if file_format == "parquet":
        from ingest.sources.parquet import count_row_groups  # as above

        try:
            with file.open() as content:
                n_groups = count_row_groups(file.name, content)
        except OSError as error:
            raise UsageError(f"source file {file.name} cannot be read: {error.strerror or error}") from error
        yield from (RowGroup(file.pattern, number) for number in range(n_groups))
    elif _is_json_lines(file.pattern, file_format):
        size = Path(file.pattern).stat().st_size
        for begin in range(0, size, split_bytes):
            yield ByteRange(file.pattern, begin, min(begin + split_bytes, size))
    else:
        yield WholeFile(file.pattern)


def _is_json_lines(name: str, file_format: Format) -> bool:
    """Whether a file is a local one of plain JSON lines; whatever else it may be is read whole."""
    if file_format not in ("auto", "json") or not name.lower().endswith(_LINE_SUFFIXES) or not Path(name).is_file():
        return False
    with Path(name).open("rb") as stream:
        first = stream.readline(_FIRST_BYTES).removeprefix(BOM).strip(JSON_SPACE)
    return first.startswith(b"{") and (file_format == "json" or not is_action(first))


def _lines_between(stream: BinaryIO, begin: int, end: int, max_bytes: int) -> Iterator[tuple[int, bytes]]:
    """Lines that are not blank, with the offsets of their first bytes; of a line longer than `max_bytes` only so
    much that it can be told."""
    if begin:
        # A line that began before belongs to the split before, even if only its newline is left.
        stream.seek(begin - 1)
        _skip_line(stream)
    while (offset := stream.tell()) < end:
        line = stream.readline(max_bytes + 2)
        if not line.endswith(b"\n"):
            _skip_line(stream)
        if stripped := (line.removeprefix(BOM) if offset == 0 else line).strip(JSON_SPACE):
            yield offset, stripped


def _skip_line(stream: BinaryIO) -> None:
    while (rest := stream.readline(READ_BYTES)) and not rest.endswith(b"\n"):
        pass
