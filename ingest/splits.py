"""Files cut into splits that several machines read: every document is in exactly one of them.

Lines of JSON are cut by bytes: a line belongs to the split in which its first byte lies. Files of other
formats, and compressed ones, are a split each. Positions of documents are offsets in bytes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import BinaryIO

from bridge.errors import UsageError
from ingest.compression import READ_BYTES
from ingest.entries import entries
from ingest.field_choice import FieldChoice
from ingest.file_source import FileDocuments, Format
from ingest.json_lines import BOM, JSON_SPACE, is_action
from ingest.source_files import STDIN, source_files
from ingest.sources import SourceItem, Unreadable, document_from_json

SPLIT_BYTES = 16_000_000
_FIRST_BYTES = 2_000
_LINE_SUFFIXES = (".jsonl", ".ndjson", ".json")


@dataclass(frozen=True, slots=True)
class Split:
    """A part of a source: of the file `name` the lines that begin in `begin` ≤ byte < `end`; all of it where
    `end` is None."""

    name: str
    begin: int = 0
    end: int | None = None


class SplitFiles:
    """The documents of files, as splits. A run over them goes in no order, so it is not resumed by position."""

    resumable = False

    def __init__(
        self,
        patterns: Sequence[str],
        fields: FieldChoice,
        *,
        max_doc_bytes: int,
        file_format: Format = "auto",
        split_bytes: int = SPLIT_BYTES,
    ) -> None:
        """`patterns` and `file_format` as of `FileDocuments`; every machine must find the files under these names.

        Raises:
            UsageError: a file does not exist or cannot be reached; standard input is named.
        """
        if STDIN in patterns:
            raise UsageError("standard input cannot be read by several machines: name files")
        files = source_files(patterns)
        self._fields = fields
        self._max_doc_bytes = max_doc_bytes
        self._format = file_format
        self.identity = "; ".join(file.identity or file.name for file in files)
        self.splits = [split for file in files for split in _splits(file.name, file_format, split_bytes)]

    def read(self, split: Split) -> Iterator[SourceItem]:
        """The items of one split, the same ones in the same order each time.

        Raises:
            UsageError: the file cannot be read here.
        """
        if split.end is None:
            whole = FileDocuments(
                [split.name], self._fields, max_doc_bytes=self._max_doc_bytes, file_format=self._format
            )
            yield from whole.items()
            return
        try:
            with Path(split.name).open("rb") as stream:
                numbered = _lines_between(stream, split.begin, split.end, self._max_doc_bytes)
                for entry in entries(split.name, numbered, self._max_doc_bytes):
                    if isinstance(entry, Unreadable):
                        yield entry
                    else:
                        yield document_from_json(entry.body, entry.position, self._fields)
        except OSError as error:
            raise UsageError(f"source file {split.name} cannot be read: {error.strerror or error}") from error

    def items(self, skip: int = 0) -> Iterator[SourceItem]:
        """See `Source`: one split after the other."""
        return islice(chain.from_iterable(map(self.read, self.splits)), skip, None)

    def total(self) -> int | None:
        """See `Source`; items are not counted ahead."""
        return None


def _splits(name: str, file_format: Format, split_bytes: int) -> list[Split]:
    if not _is_json_lines(name, file_format):
        return [Split(name)]
    size = Path(name).stat().st_size
    return [Split(name, begin, min(begin + split_bytes, size)) for begin in range(0, size, split_bytes)]


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
