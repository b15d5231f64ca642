"""Batches of a source: what goes on together, and what must not."""

from collections.abc import Sequence

import pytest

from bridge.records import Document, SourcePosition
from ingest.stages.batches import BatchReader


def document(doc_id: str, routing: str | None, offset: int) -> Document:
    return Document(doc_id, b"{}", {"text": "words"}, SourcePosition("memory", offset), routing)


def reader(**options: bool) -> BatchReader:
    return BatchReader(None, max_items=100, max_texts=100, **options)


def sent(batches: BatchReader, documents: Sequence[Document]) -> list[list[tuple[str, str | None]]]:
    return [[(each.doc_id, each.routing) for each in batch.documents] for batch in batches.batches(documents)]


@pytest.mark.case("I24")
def test_one_id_under_two_routings_is_two_documents_one_request_after_the_other() -> None:
    given = [("twin", "a"), ("other", None), ("twin", "b"), ("last", None)]
    batches = reader(last_wins=False)
    documents = [document(doc_id, routing, i) for i, (doc_id, routing) in enumerate(given)]
    assert sent(batches, documents) == [[("twin", "a"), ("other", None)], [("twin", "b"), ("last", None)]]
    assert batches.duplicates == 0


@pytest.mark.case("I18")
def test_one_id_under_one_routing_is_one_document() -> None:
    batches = reader()
    [batch] = batches.batches([document("twin", "a", 0), document("other", None, 1), document("twin", "a", 2)])
    assert [each.position.offset for each in batch.documents] == [1, 2]
    assert [(item.position.offset, outcome.kind) for item, outcome in batch.ended] == [(0, "superseded")]
    assert batches.duplicates == 1


def test_of_two_routings_only_what_changed_goes_on() -> None:
    documents = [document("twin", routing, i) for i, routing in enumerate("ab")]
    batches = BatchReader(lambda compared: list(compared[1:]), max_items=100, max_texts=100)
    [batch] = batches.batches(documents)
    assert [each.routing for each in batch.documents] == ["b"]
    assert [(item.position.offset, outcome.kind) for item, outcome in batch.ended] == [(0, "unchanged")]


def test_documents_with_nothing_but_a_picture_are_work_for_models() -> None:
    pictures = [
        Document(str(n), b"{}", {"text": ""}, SourcePosition("memory", n), image="a.png" if n < 4 else None)
        for n in range(6)
    ]
    batches = BatchReader(None, max_items=100, max_texts=2).batches(pictures)
    assert [len(batch.documents) for batch in batches] == [2, 2, 2]
