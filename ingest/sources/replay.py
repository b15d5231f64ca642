"""Dead letters as a source: tried again once an operator has dealt with their cause."""

import base64
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from bridge.errors import UsageError
from bridge.records import Document, SourcePosition
from bridge.text.passages import field_texts
from ingest.books.dead_letters import DeadLetter, read_dead_letters
from ingest.sources.field_choice import FieldChoice
from ingest.sources.json_objects import JsonProblem, parse_object
from ingest.sources.opening import SourceItem, Unreadable, document_from_json

REPLAYED = ".replayed"
"""Suffix of a file whose letters are all written."""


class DeadLetterDocuments:
    """The documents of a file of dead letters. What was no document is none now either, unless the file was
    corrected by hand."""

    resumable = False

    def __init__(self, path: Path, fields: FieldChoice) -> None:
        """`fields` as of the run that the letters come from.

        Raises:
            UsageError: the letters hold parts of documents only, which must not replace the documents.
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

    def items(self, skip: int = 0) -> Iterator[SourceItem]:
        """See `Source`."""
        for line, letter in islice(enumerate(self._letters, 1), skip, None):
            yield self._item(SourcePosition(str(self._path), line), letter)

    def total(self) -> int:
        """See `Source`."""
        return len(self._letters)

    def _item(self, position: SourcePosition, letter: DeadLetter) -> SourceItem:
        body = letter.document.encode() if letter.document is not None else _decoded(letter)
        if letter.id is None:
            return document_from_json(body, position, self._fields)
        try:
            texts = field_texts(parse_object(body), self._fields.text_fields)
        except JsonProblem as problem:
            return Unreadable(position, problem.kind, str(problem), body, letter.id)
        return Document(letter.id, body, texts, position, letter.routing)


def causes(path: Path) -> Counter[str]:
    """How many letters of a file died of what.

    Raises:
        IngestError: the file cannot be read.
    """
    return Counter(str(letter.error.get("type")) for letter in read_dead_letters(path))


def mark_replayed(path: Path) -> Path:
    """Renames a file whose letters are all written; they are kept."""
    return path.rename(path.with_name(path.name + REPLAYED))


def _decoded(letter: DeadLetter) -> bytes:
    return base64.b64decode(letter.document_base64 or "")
