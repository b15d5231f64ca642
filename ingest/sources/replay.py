"""Dead letters as a source: tried again once an operator has dealt with their cause."""

import base64
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from bridge.errors import UsageError
from bridge.records import Document, SourcePosition
from bridge.text import field_texts, first_text
from ingest.books.state_folder import DeadLetter, read_dead_letters
from ingest.sources.documents import FieldChoice, document_of
from ingest.sources.json_bytes import Entry, JsonProblem, parse_object
from ingest.sources.source import Source, SourceItem, Unreadable

REPLAYED = ".replayed"
"""Suffix of a file whose letters are all written."""


class DeadLetterDocuments(Source[Sequence[DeadLetter]]):
    """The documents of a file of dead letters. What was no document is none now either, unless somebody corrected
    the file by hand."""

    def __init__(self, path: Path, fields: FieldChoice) -> None:
        """`fields` are those of the run that wrote the letters.

        Raises:
            UsageError: the letters hold only parts of documents, which must not replace the documents.
            IngestError: the file cannot be read.
        """
        letters = list(read_dead_letters(path))
        if any(letter.partial for letter in letters):
            raise UsageError(
                f"{path} comes from a backfill and holds parts of documents that are in the index: run "
                f"`neural-bridge backfill {letters[0].index}` again instead"
            )
        self._path = path
        self._letters = letters
        self._fields = fields
        self.identity = f"dead letters {path.resolve()}"

    def parts(self) -> Sequence[Sequence[DeadLetter]]:
        """One part: the whole file."""
        return [self._letters]

    def read(self, part: Sequence[DeadLetter]) -> Iterator[SourceItem]:
        """See `Source`."""
        for line, letter in enumerate(part, 1):
            yield self._item(SourcePosition(str(self._path), line), letter)

    def total(self) -> int:
        """See `Source`."""
        return len(self._letters)

    def _item(self, position: SourcePosition, letter: DeadLetter) -> SourceItem:
        encoded = letter.document_base64 or ""
        body = letter.document.encode() if letter.document is not None else base64.b64decode(encoded)
        if letter.id is None:
            return document_of(Entry(position, body), self._fields)
        try:
            values = parse_object(body)
        except JsonProblem as problem:
            return Unreadable(position, problem.kind, str(problem), body, letter.id)
        texts = field_texts(values, self._fields.text_fields)
        image = first_text(values, self._fields.image_field)
        return Document(letter.id, body, texts, position, letter.routing, image=image)


def causes(path: Path) -> Counter[str]:
    """The number of letters in a file by the type of their error.

    Raises:
        IngestError: the file cannot be read.
    """
    return Counter(str(letter.error.get("type")) for letter in read_dead_letters(path))


def mark_replayed(path: Path) -> Path:
    """Renames a file whose letters are all written; gives its new path."""
    return path.rename(path.with_name(path.name + REPLAYED))
