"""Actions are exact to the byte, and every answer of a cluster has one meaning."""

import json
from base64 import b64decode
from typing import Any, Literal

import msgspec
import numpy as np
import pytest

from bridge.cluster.connection import Answer
from bridge.cluster.dialects import code_of
from bridge.errors import AccessDenied, IndexUnsuitable
from bridge.profile import ImageSettings, ModelReference, PassageSettings, SparseSettings
from bridge.records import Document, DocumentVersion, EnrichedDocument, Passage, SourcePosition
from ingest.books.ledger import Outcome
from ingest.stages.models import profile_for
from ingest.writing.bulk import (
    Again,
    BulkAction,
    Stop,
    TooMuch,
    Verdict,
    companion_action,
    delete_action,
    index_action,
    neural_object,
    retry_after_s,
    update_action,
    verdicts,
)
from tests.fake_bulk import error_body
from tests.ingest.toys import models_with_terms, toy_models

PROFILE = profile_for(toy_models(), ["title"])
ACTION = BulkAction("index", "d1", b"")


def enriched(text: str = "a shoe", routing: str | None = None) -> EnrichedDocument:
    body = b'{ "title" : "a shoe", "price" : 1.10 }'
    document = Document("d1", body, {"title": text}, SourcePosition("file", 1), routing, DocumentVersion(7, 2))
    passages = (Passage(text, 0, len(text)),) if text else ()
    return EnrichedDocument(
        document, passages, ("what is a shoe",) if text else (), np.eye(4, dtype=np.float32)[: len(passages)], "stamp"
    )


def test_a_whole_document_keeps_its_bytes_beside_our_object() -> None:
    action = index_action(enriched(routing="r"), PROFILE)
    head, body, _ = action.lines.split(b"\n")
    assert json.loads(head) == {"index": {"_id": "d1", "routing": "r"}}
    assert b'"title" : "a shoe", "price" : 1.10' in body
    assert json.loads(body)["_neural"]["predicted_queries"] == ["what is a shoe"]


def test_an_update_sets_our_object_alone_and_only_for_the_version_that_was_read() -> None:
    head, body, _ = update_action(enriched(), PROFILE).lines.split(b"\n")
    assert json.loads(head)["update"] == {"_id": "d1", "if_seq_no": 7, "if_primary_term": 2}
    assert list(json.loads(body)["doc"]) == ["_neural"]


def test_a_companion_holds_texts_and_our_object_in_the_version_that_was_read() -> None:
    beside = msgspec.structs.replace(PROFILE, beside="things")
    head, body, _ = companion_action(enriched(routing="r"), beside).lines.split(b"\n")
    target = {"_id": "d1", "routing": "r", "version": 8, "version_type": "external_gte"}
    assert json.loads(head) == {"index": target}
    written = json.loads(body)
    assert (written["title"], written.keys()) == ("a shoe", {"title", "_neural"})
    assert written["_neural"]["id"] == "d1"
    assert companion_action(enriched(""), beside).lines.split(b"\n")[1].startswith(b'{"_neural":')


def test_a_document_is_deleted_only_as_it_was_read() -> None:
    action = delete_action(enriched(routing="r").document)
    items = [{"status": 200, "result": "deleted"}, {"status": 404, "result": "not_found"}]
    target = {"_id": "d1", "routing": "r", "if_seq_no": 7, "if_primary_term": 2}
    assert (action.op, json.loads(action.lines)) == ("delete", {"delete": target})
    assert [answered(item, action) for item in items] == [Outcome("written"), Outcome("superseded")]


def test_terms_are_an_array_so_that_an_update_leaves_none_of_an_earlier_text() -> None:
    profile = profile_for(models_with_terms(), ["title"])
    made = msgspec.structs.replace(enriched(), terms={"shoe": 2.34567, "##s": 0.00012345})
    for action in (index_action, update_action):
        body = json.loads(action(made, profile).lines.split(b"\n")[1])
        assert body.get("doc", body)["_neural"]["terms"] == [{"shoe": 2.35, "##s": 0.000123}]
    body = json.loads(update_action(enriched(""), profile).lines.split(b"\n")[1])
    assert body["doc"]["_neural"]["terms"] == []  # no engine takes null
    assert "terms" not in json.loads(neural_object(made, PROFILE))


def test_the_vector_of_a_picture_is_written_where_the_index_has_some_and_cleared_where_it_went() -> None:
    pictured = msgspec.structs.replace(PROFILE, image=ImageSettings("photo", ModelReference("clip", "6" * 12), 2))
    made = msgspec.structs.replace(enriched(), image=np.array([0.6, 0.8], dtype=np.float32))
    for action in (index_action, update_action):
        body = json.loads(action(made, pictured).lines.split(b"\n")[1])
        assert body.get("doc", body)["_neural"]["image_embedding"] == pytest.approx([0.6, 0.8])
    as_bytes = msgspec.structs.replace(pictured, vector_encoding="byte")
    assert json.loads(neural_object(made, as_bytes))["image_embedding"] == [95, 127]
    assert "image_embedding" not in json.loads(neural_object(made, PROFILE))
    body = json.loads(update_action(enriched(), pictured).lines.split(b"\n")[1])
    assert body["doc"]["_neural"]["image_embedding"] is None


def test_an_update_clears_what_an_earlier_recipe_made() -> None:
    body = update_action(enriched(""), PROFILE).lines.split(b"\n")[1]
    assert json.loads(body)["doc"]["_neural"] == {"stamp": "stamp", "predicted_queries": None, "embedding": None}
    assert json.loads(neural_object(enriched(""), PROFILE)) == {"stamp": "stamp"}


@pytest.mark.parametrize("layout", ["single", "nested"])
def test_a_document_has_a_code_if_its_index_holds_codes(layout: Literal["single", "nested"]) -> None:
    """Of the embedding (1, 0, 0, 0): the first bit, in base64."""
    coded = msgspec.structs.replace(PROFILE, codes="sign", passages=PassageSettings(layout))
    assert json.loads(neural_object(enriched(), coded))["code"] == "gA=="
    assert "code" not in json.loads(neural_object(enriched(), PROFILE))
    assert "code" not in json.loads(neural_object(enriched(""), coded))
    cleared = json.loads(update_action(enriched(""), coded).lines.split(b"\n")[1])["doc"]["_neural"]
    assert cleared["code"] is None


def test_a_document_without_vectors_has_a_code_of_its_terms() -> None:
    coded = msgspec.structs.replace(
        PROFILE, codes="terms", vector_type="none", sparse=SparseSettings(ModelReference("sparse", "4" * 12))
    )
    made = msgspec.structs.replace(enriched(), embeddings=np.zeros((0, 4), np.float32), terms={"wing": 2.0})
    assert b64decode(json.loads(neural_object(made, coded))["code"]) == code_of(made.embeddings, made.terms, coded)
    assert "code" not in json.loads(neural_object(enriched(""), coded))


def answered(item: dict[str, Any], action: BulkAction = ACTION) -> Verdict:
    first = {"update": {"_id": "-", "status": 404, "error": {"type": "index_not_found_exception", "reason": "none"}}}
    body = json.dumps({"items": [first, {action.op: {"_id": "d1", **item}}]}).encode()
    found = verdicts(Answer(200, {"content-type": "application/json"}, body), [action])
    assert isinstance(found, list)
    return found[0]


def error(kind: str) -> dict[str, Any]:
    return {"error": {"type": kind, "reason": "why"}}


@pytest.mark.parametrize(
    ("item", "kind"),
    [
        ({"status": 201, "result": "created"}, "written"),
        ({"status": 200, "result": "noop"}, "dropped_by_pipeline"),
        ({"status": 409, **error("version_conflict_engine_exception")}, "superseded"),
        ({"status": 404, **error("document_missing_exception")}, "superseded"),
        ({"status": 400, **error("mapper_parsing_exception")}, "dead_lettered"),
    ],
)
def test_an_item_ends_in_one_way(item: dict[str, Any], kind: str) -> None:
    verdict = answered(item)
    assert isinstance(verdict, Outcome)
    assert verdict.kind == kind


@pytest.mark.parametrize(
    ("item", "cause"),
    [
        ({"status": 429, **error("rejected_execution_exception")}, "overloaded"),
        ({"status": 429, **error("cluster_block_exception")}, "blocked"),
        ({"status": 503, **error("unavailable_shards_exception")}, "away"),
        ({"status": 500, **error("odd")}, "unknown"),
        ({"status": 200}, "unknown"),
    ],
)
def test_an_item_that_was_not_carried_out_is_sent_again(item: dict[str, Any], cause: str) -> None:
    verdict = answered(item)
    assert isinstance(verdict, Again)
    assert verdict.cause == cause


@pytest.mark.parametrize(("status", "expected"), [(403, AccessDenied), (404, IndexUnsuitable)])
def test_an_index_that_takes_nothing_ends_the_run(status: int, expected: type[Exception]) -> None:
    verdict = answered({"status": status, **error("odd")})
    assert isinstance(verdict, Stop)
    assert isinstance(verdict.error, expected)


@pytest.mark.parametrize(
    ("status", "kind", "expected"),
    [
        (413, "odd", TooMuch),
        (429, "rejected_execution_exception", Again),
        (401, "security_exception", Stop),
    ],
)
def test_a_whole_request_has_one_verdict(status: int, kind: str, expected: type[object]) -> None:
    answer = Answer(status, {"content-type": "application/json"}, error_body(status, kind))
    assert isinstance(verdicts(answer, [ACTION]), expected)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, 0.0),
        ({"retry-after": "2.5"}, 2.5),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:30 GMT", "date": "Wed, 21 Oct 2015 07:28:00 GMT"}, 30.0),
        ({"retry-after": "soon"}, 0.0),
    ],
)
def test_retry_after_is_seconds_or_a_date(headers: dict[str, str], seconds: float) -> None:
    assert retry_after_s(Answer(429, headers, b"")) == seconds
