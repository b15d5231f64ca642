"""Files as a source of documents: which format each has, and its entries as documents."""

from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import PurePath
from typing import Literal

from bridge.errors import UsageError
from ingest.sources.compression import Peekable, decompressed
from ingest.sources.delimited import row_entries
from ingest.sources.entries import Entry, entries
from ingest.sources.field_choice import FieldChoice
from ingest.sources.file_listing import SourceFile, source_files
from ingest.sources.json_array import elements
from ingest.sources.json_lines import BOM, JSON_SPACE, bulk_entries, hit_entries, is_action, lines
from ingest.sources.opening import SourceItem, Unreadable, document_from_json

Format = Literal["auto", "json", "bulk", "hits", "csv", "tsv", "parquet"]
"""json: an object in each line, or one array of objects. bulk: bodies of `_bulk` requests. hits: search hits, as
elasticdump writes them. auto: csv, tsv and parquet by the file's name, bulk by its first line, else json."""

MAX_EXPANDED_BYTES = 100_000_000_000
"""A compressed file that holds more is taken for a bomb."""

_DELIMITERS = {"csv": ",", "tsv": "\t"}
_COMPRESSED = (".gz", ".zst")
_BY_SUFFIX: dict[str, Format] = {".csv": "csv", ".tsv": "tsv", ".parquet": "parquet"}


class FileDocuments:
    """The documents of files, plain or compressed (gzip, zstd)."""

    def __init__(
        self,
        patterns: Sequence[str],
        fields: FieldChoice,
        *,
        max_doc_bytes: int,
        max_expanded_bytes: int = MAX_EXPANDED_BYTES,
        file_format: Format = "auto",
    ) -> None:
        """`patterns` are paths, globs, URLs or `-`, read in that order, a glob's files sorted by name. No file may
        grow beyond `max_expanded_bytes` when it is decompressed.

        Raises:
            UsageError: a file does not exist, is a folder, cannot be reached, or a glob matches nothing.
        """
        self._files = source_files(patterns)
        self._fields = fields
        self._max_doc_bytes = max_doc_bytes
        self._max_expanded_bytes = max_expanded_bytes
        self._format = file_format
        self.resumable = all(file.identity for file in self._files)
        self.identity = "; ".join(file.identity or file.name for file in self._files)

    def items(self, skip: int = 0) -> Iterator[SourceItem]:
        """See `Source`."""
        remaining = skip
        for entry in chain.from_iterable(map(self._entries, self._files)):
            if remaining:
                remaining -= 1
            elif isinstance(entry, Unreadable):
                yield entry
            else:
                yield document_from_json(
                    entry.body, entry.position, self._fields, doc_id=entry.doc_id, routing=entry.routing
                )

    def total(self) -> int | None:
        """See `Source`; entries are not counted ahead."""
        return None

    def _entries(self, file: SourceFile) -> Iterator[Entry | Unreadable]:
        file_format = format_of(file.name, self._format)
        try:
            opened = file.open()
        except OSError as error:
            raise UsageError(f"source file {file.name} cannot be read: {error.strerror or error}") from error
        with opened as content:
            if file_format == "parquet":
                from ingest.sources.parquet import parquet_entries  # pyarrow is an optional package, and takes a while

                yield from parquet_entries(file.name, content, self._max_doc_bytes)
                return
            with decompressed(file.name, content, max_bytes=self._max_expanded_bytes) as stream:
                yield from self._read(file.name, stream, file_format)

    def _read(self, name: str, stream: Peekable, file_format: Format) -> Iterator[Entry | Unreadable]:
        limit = self._max_doc_bytes
        if (delimiter := _DELIMITERS.get(file_format)) is not None:
            return row_entries(name, stream, delimiter=delimiter, numbers=self._fields.numbers, max_bytes=limit)
        if file_format in ("auto", "json") and _begins_array(stream):
            return entries(name, elements(stream, limit), limit)
        numbered = lines(stream, limit)
        if file_format == "auto" and (first := next(numbered, None)) is not None:
            file_format = "bulk" if is_action(first[1]) else "json"
            numbered = chain([first], numbered)
        read = {"bulk": bulk_entries, "hits": hit_entries}.get(file_format, entries)
        return read(name, numbered, limit)


def format_of(name: str, asked: Format) -> Format:
    """The format of a file that `asked` says, or its name; auto where the file itself must tell."""
    return _BY_SUFFIX.get(_suffix(name), "auto") if asked == "auto" else asked


def _suffix(name: str) -> str:
    path = PurePath(name.lower())
    return PurePath(path.stem).suffix if path.suffix in _COMPRESSED else path.suffix


def _begins_array(stream: Peekable) -> bool:
    return stream.peek().removeprefix(BOM).lstrip(JSON_SPACE).startswith(b"[")
