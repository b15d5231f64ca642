"""Files as a source of documents: which format each has, and the parts into which several machines cut them.

Local lines of JSON are cut by bytes: a line belongs to the part in which its first byte lies, and positions of its
documents are offsets. Parquet is cut by its groups of rows. Any other file is one part.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path, PurePath
from typing import Literal

from bridge.errors import UsageError
from ingest.sources.delimited import row_entries
from ingest.sources.documents import FieldChoice, document_of
from ingest.sources.file_access import STDIN, Peekable, SourceFile, decompressed, source_files
from ingest.sources.json_bytes import (
    BOM,
    JSON_SPACE,
    Entry,
    bulk_entries,
    elements,
    entries,
    hit_entries,
    is_action,
    lines,
    lines_between,
)
from ingest.sources.source import Source, SourceItem, Unreadable

Format = Literal["auto", "json", "bulk", "hits", "csv", "tsv", "parquet"]
"""json: an object in each line, or one array of objects. bulk: bodies of `_bulk` requests. hits: search hits, as
elasticdump writes them. auto: csv, tsv and parquet by the file's name, bulk by its first line, else json."""

MAX_EXPANDED_BYTES = 100_000_000_000
"""A compressed file that holds more is taken for a bomb."""

PART_BYTES = 16_000_000
"""Enough for several machines to share a file, and little to read again after one of them died."""

_FIRST_BYTES = 2_000
_DELIMITERS = {"csv": ",", "tsv": "\t"}
_COMPRESSED = (".gz", ".zst")
_LINES = (".jsonl", ".ndjson", ".json")
_BY_SUFFIX: dict[str, Format] = {".csv": "csv", ".tsv": "tsv", ".parquet": "parquet"}


@dataclass(frozen=True, slots=True)
class FilePart:
    """A file; of one with lines those that begin at one of `places`, of Parquet one group of rows, from 0 on."""

    file: SourceFile
    places: range | None = None
    row_group: int | None = None


class FileDocuments(Source[FilePart]):
    """The documents of files, plain or compressed (gzip, zstd)."""

    def __init__(
        self,
        patterns: Sequence[str],
        fields: FieldChoice,
        *,
        max_doc_bytes: int,
        max_expanded_bytes: int = MAX_EXPANDED_BYTES,
        file_format: Format = "auto",
        part_bytes: int | None = None,
    ) -> None:
        """`patterns` are paths, globs, URLs or `-`, read in that order, a glob's files sorted by name. No file may
        grow beyond `max_expanded_bytes` when it is decompressed.

        `part_bytes` cuts files into parts of this size, for machines that read them in any order and find all files
        under the same names; None makes each file one part.

        Raises:
            UsageError: a file does not exist, is a folder, cannot be reached, or a glob matches nothing; standard
                input is to be cut.
        """
        if part_bytes and STDIN in patterns:
            raise UsageError("standard input cannot be read by several machines: name files")
        files = source_files(patterns)
        self._fields = fields
        self._max_doc_bytes = max_doc_bytes
        self._max_expanded_bytes = max_expanded_bytes
        self._format = file_format
        self._parts = [part for file in files for part in self._cut(file, part_bytes)]
        self.resumable = part_bytes is None and all(file.identity for file in files)
        self.identity = "; ".join(file.identity or file.name for file in files)

    def parts(self) -> Sequence[FilePart]:
        """See `Source`."""
        return self._parts

    def read(self, part: FilePart) -> Iterator[SourceItem]:
        """See `Source`."""
        return map(self._item, self._entries(part))

    def items(self, skip: int = 0, mark: str | None = None) -> Iterator[SourceItem]:
        """See `Source`; the entries that are skipped are not parsed."""
        return map(self._item, islice(chain.from_iterable(map(self._entries, self._parts)), skip, None))

    def total(self) -> None:
        """See `Source`."""

    def _item(self, entry: Entry | Unreadable) -> SourceItem:
        return document_of(entry, self._fields) if isinstance(entry, Entry) else entry

    def _entries(self, part: FilePart) -> Iterator[Entry | Unreadable]:
        file, limit = part.file, self._max_doc_bytes
        file_format = _format_of(file, self._format)
        try:
            with file.open() as content:
                if file_format == "parquet":
                    from ingest.sources.parquet import parquet_entries  # pyarrow is optional, and takes a while

                    yield from parquet_entries(file.name, content, limit, row_group=part.row_group)
                elif part.places is not None:
                    yield from entries(file.name, lines_between(content, part.places, limit), limit)
                else:
                    with decompressed(file.name, content, max_bytes=self._max_expanded_bytes) as stream:
                        yield from self._read(file.name, stream, file_format)
        except OSError as error:
            raise _unreadable(file, error) from error

    def _read(self, name: str, stream: Peekable, file_format: Format) -> Iterator[Entry | Unreadable]:
        limit = self._max_doc_bytes
        if (delimiter := _DELIMITERS.get(file_format)) is not None:
            return row_entries(name, stream, delimiter=delimiter, numbers=self._fields.numbers, max_bytes=limit)
        if file_format in ("auto", "json") and _begin(stream.peek()).startswith(b"["):
            return entries(name, elements(stream, limit), limit)
        numbered = lines(stream, limit)
        if file_format == "auto" and (first := next(numbered, None)) is not None:
            file_format = "bulk" if is_action(first[1]) else "json"
            numbered = chain([first], numbered)
        read = {"bulk": bulk_entries, "hits": hit_entries}.get(file_format, entries)
        return read(name, numbered, limit)

    def _cut(self, file: SourceFile, part_bytes: int | None) -> Iterator[FilePart]:
        file_format = _format_of(file, self._format)
        if part_bytes is None:
            yield FilePart(file)
        elif file_format == "parquet":
            from ingest.sources.parquet import count_row_groups  # as above

            try:
                with file.open() as content:
                    n_groups = count_row_groups(file.name, content)
            except OSError as error:
                raise _unreadable(file, error) from error
            yield from (FilePart(file, row_group=number) for number in range(n_groups))
        elif _holds_json_lines(file, file_format):
            size = Path(file.path).stat().st_size
            for begin in range(0, size, part_bytes):
                yield FilePart(file, range(begin, min(begin + part_bytes, size)))
        else:
            yield FilePart(file)


def _format_of(file: SourceFile, wanted: Format) -> Format:
    """The wanted format, or the one of the file's name; auto if only the content tells."""
    path = PurePath(file.name.lower())
    suffix = PurePath(path.stem).suffix if path.suffix in _COMPRESSED else path.suffix
    return _BY_SUFFIX.get(suffix, "auto") if wanted == "auto" else wanted


def _holds_json_lines(file: SourceFile, file_format: Format) -> bool:
    """Whether a file is a local one of plain JSON lines; any other is read whole."""
    path = Path(file.path)
    if file_format not in ("auto", "json") or not file.path.lower().endswith(_LINES) or not path.is_file():
        return False
    with path.open("rb") as stream:
        first = _begin(stream.readline(_FIRST_BYTES)).rstrip(JSON_SPACE)
    return first.startswith(b"{") and (file_format == "json" or not is_action(first))


def _begin(content: bytes) -> bytes:
    return content.removeprefix(BOM).lstrip(JSON_SPACE)


def _unreadable(file: SourceFile, error: OSError) -> UsageError:
    return UsageError(f"source file {file.name} cannot be read: {error.strerror or error}")
