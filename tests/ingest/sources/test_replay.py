"""Dead letters are documents again, with the ids and routings that they had."""

from pathlib import Path

import pytest

from bridge.errors import UsageError
from bridge.records import Document, SourcePosition
from ingest.books.ledger import Failure
from ingest.books.state_folder import DeadLetters
from ingest.sources.documents import FieldChoice
from ingest.sources.replay import DeadLetterDocuments, causes, mark_replayed
from ingest.sources.source import SourceItem, Unreadable
from tests.ingest.sources.reading import outcome

FIELDS = FieldChoice(["title"])
ITEMS: list[SourceItem] = [
    Document("a", b'{"title": "one"}', {"title": "one"}, SourcePosition("corpus", 1), routing="r"),
    Unreadable(SourcePosition("corpus", 2), "invalid_utf8", "no UTF-8", b'{"_id": "\xff"}'),
]


def letters_of(folder: Path, *, partial: bool = False) -> Path:
    file = DeadLetters(folder / "letters.jsonl", "things", partial=partial)
    for item, kind in zip(ITEMS, ("mapper_parsing_exception", "invalid_utf8"), strict=True):
        file.add(item, Failure(kind, "a reason"))
    file.flush()
    file.close()
    return file.path


def test_letters_are_the_documents_that_they_were(tmp_path: Path) -> None:
    source = DeadLetterDocuments(letters_of(tmp_path), FIELDS)
    document, unreadable = source.items()
    assert isinstance(document, Document)
    assert (document.doc_id, document.body, document.texts, document.routing) == (
        "a",
        b'{"title": "one"}',
        {"title": "one"},
        "r",
    )
    assert outcome(unreadable) == (2, "invalid_utf8")
    assert source.total() == 2


def test_parts_of_documents_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="neural-bridge backfill things"):
        DeadLetterDocuments(letters_of(tmp_path, partial=True), FIELDS)


def test_causes_are_counted_and_a_replayed_file_is_kept(tmp_path: Path) -> None:
    path = letters_of(tmp_path)
    assert causes(path) == {"mapper_parsing_exception": 1, "invalid_utf8": 1}
    assert mark_replayed(path).read_bytes()
    assert not path.exists()
