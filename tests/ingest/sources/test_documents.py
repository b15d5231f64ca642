"""An entry of a file is a document or a named problem: ids are checked, bytes stay exact."""

import json
from pathlib import Path

import pytest

from bridge.errors import UsageError
from bridge.records import Document, SourcePosition
from ingest.sources.documents import FieldChoice, document_of, read_field_choice
from ingest.sources.json_bytes import Entry
from ingest.sources.source import Unreadable
from tests.ingest.sources.reading import FIELDS, outcome, read, written


@pytest.mark.case("I18")
@pytest.mark.parametrize(
    ("body", "reason"),
    [
        pytest.param(b'{"_id": ""}', "is empty", id="empty"),
        pytest.param(b'{"title": "x"}', "is missing", id="missing"),
        pytest.param(b'{"_id": null}', "is missing", id="null"),
        pytest.param(b'{"_id": [1]}', "neither text nor number", id="array"),
        pytest.param(b'{"_id": true}', "neither text nor number", id="boolean"),
        pytest.param(json.dumps({"_id": "é" * 257}, ensure_ascii=False).encode(), "514 bytes", id="too-long"),
    ],
)
def test_ids_that_opensearch_refuses_are_named(body: bytes, reason: str) -> None:
    item = document_of(Entry(SourcePosition("x", 1), body), FIELDS)
    assert isinstance(item, Unreadable)
    assert reason in item.reason


@pytest.mark.case("I19")
def test_fields_named_like_bulk_metadata_stay_in_the_document() -> None:
    body = b'{"sku": 5, "routing": "r", "version": 1, "pipeline": "p", "_source": {}, "_index": "i", "_op_type": "x"}'
    item = document_of(Entry(SourcePosition("x", 1), body), FieldChoice(["text"], id_field="sku"))
    assert isinstance(item, Document)
    assert (item.doc_id, item.body, item.routing) == ("5", body, None)


@pytest.mark.parametrize(
    ("body", "text"),
    [
        pytest.param(b'{"_id": 1, "a": {"b": "deep"}}', "deep", id="object"),
        pytest.param(b'{"_id": 1, "a.b": "dotted"}', "dotted", id="dots-in-the-key"),
        pytest.param(b'{"_id": 1, "a": [{"b": "one"}, {"b": "two"}, 3]}', "one\ntwo", id="array-of-objects"),
        pytest.param(b'{"_id": 1, "a": {"b": ["one", "two"]}}', "one\ntwo", id="array-of-texts"),
        pytest.param(b'{"_id": 1, "a": {"b": 12.50}}', "12.50", id="number"),
        pytest.param(b'{"_id": 1, "a": null}', "", id="null"),
    ],
)
def test_text_is_found_where_the_mapping_would_find_it(body: bytes, text: str) -> None:
    item = document_of(Entry(SourcePosition("x", 1), body), FieldChoice(["a.b"]))
    assert isinstance(item, Document)
    assert item.texts == {"a.b": text}


def test_fields_are_renamed_and_dropped_and_values_stay_as_they_were(tmp_path: Path) -> None:
    choice = written(
        tmp_path, "fields.yaml", b"id_field: sku\ntext_fields: [title]\nrename: {name: title}\ndrop: [sku, secret]\n"
    )
    content = b'{"sku": 7, "name": "Wing", "price": 1.50, "secret": {"x": 1}}\n{"sku": 8, "name": "a", "title": "b"}\n'
    first, second = read(written(tmp_path, "c.jsonl", content), read_field_choice(choice))
    assert isinstance(first, Document)
    assert (first.doc_id, first.body, first.texts) == ("7", b'{"title":"Wing","price":1.50}', {"title": "Wing"})
    assert outcome(second) == (2, "duplicate_key")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(b"id: sku", "unknown field `id`; known keys: text_fields, id_field", id="unknown-key"),
        pytest.param(b"drop: secret", "Expected `array`", id="wrong-shape"),
        pytest.param(b"{", "is no YAML", id="no-yaml"),
    ],
)
def test_a_field_mapping_that_says_something_else_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read_field_choice(written(tmp_path, "fields.yaml", content))
