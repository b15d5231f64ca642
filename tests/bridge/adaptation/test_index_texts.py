"""Documents of an index as models read them: those with a text, whatever their routing."""

from collections.abc import Sequence

import pytest
from opensearchpy import OpenSearch

from bridge.adaptation.index_texts import IndexedText, IndexTexts
from bridge.profile import IndexProfile, ModelReference
from bridge.records import Passage

PROFILE = IndexProfile(["title", "body"], ModelReference("toy", "0" * 12), 4)


def halves(text: str) -> Sequence[Passage]:
    """As a splitter of long texts: two passages of each."""
    middle = len(text) // 2
    return [Passage(text[:middle], 0, middle), Passage(text[middle:], middle, len(text))]


@pytest.fixture
def texts(opensearch: OpenSearch, fresh_index: str) -> IndexTexts:
    properties = {"title": {"type": "text"}, "body": {"type": "text"}, "price": {"type": "integer"}}
    opensearch.indices.create(index=fresh_index, body={"mappings": {"properties": properties}})
    for n in range(8):
        opensearch.index(index=fresh_index, id=f"d{n}", body={"title": f"title {n}", "body": "words", "price": n})
    opensearch.index(index=fresh_index, id="routed", body={"title": "routed"}, params={"routing": "far"})
    opensearch.index(index=fresh_index, id="silent", body={"price": 1})
    opensearch.indices.refresh(index=fresh_index)
    return IndexTexts(opensearch, fresh_index, PROFILE, halves)


def test_named_documents_are_read_by_field_as_one_text_and_in_passages(texts: IndexTexts) -> None:
    found = {each.doc_id: each for each in texts.by_id(["d3", "routed", "silent", "missing"])}
    assert found == {
        "d3": IndexedText("d3", ["title 3", "words"], "title 3. words", ["title 3", ". words"]),
        "routed": IndexedText("routed", ["routed", ""], "routed", ["rou", "ted"]),
    }
    assert texts.by_id([]) == []


def test_a_sample_is_bounded_and_the_same_each_time(texts: IndexTexts) -> None:
    everything = texts.sample(100)
    assert {each.doc_id for each in everything} == {*(f"d{n}" for n in range(8)), "routed"}
    few = texts.sample(4)
    assert texts.sample(4) == few
    assert 1 <= len(few) <= 4
