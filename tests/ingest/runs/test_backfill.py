"""An application's index is enriched in place while it is in use: nothing of the application's is lost."""

import json
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from numpy.typing import NDArray
from opensearchpy import NotFoundError, OpenSearch

from bridge.cluster import index as indices
from bridge.cluster.connection import connect
from bridge.cluster.removal import undo
from bridge.errors import IndexUnsuitable
from bridge.node.node import EmbeddedNode
from bridge.profile import IndexProfile, PassageSettings
from bridge.settings import ClusterSettings, IngestSettings
from ingest.job import Job
from ingest.runs.backfill import BackfillReport, run_backfill
from ingest.runs.ingest import run_ingest
from ingest.sources.documents import FieldChoice
from ingest.sources.files import FileDocuments
from ingest.stages.models import Models, profile_for
from tests.ingest.application import MAPPING, TEXT_FIELDS, old_application, source
from tests.ingest.toys import CountingEncoder, models_with_terms, toy_models

Backfill = Callable[..., BackfillReport]


@pytest.fixture
def client(node: EmbeddedNode) -> OpenSearch:
    return connect(ClusterSettings(url=node.url))


@pytest.fixture
def backfill(client: OpenSearch, fresh_index: str, tmp_path: Path) -> Backfill:
    def run(models: Models | None = None, profile: IndexProfile | None = None, **options: Any) -> BackfillReport:
        models = models or toy_models()
        report = run_backfill(
            Job(
                fresh_index,
                profile=profile or profile_for(models, TEXT_FIELDS),
                models=models,
                client=client,
                settings=IngestSettings(queries_per_passage=3),
                state_folder=tmp_path / "state",
                **options,
            ),
        )
        client.indices.refresh(index=fresh_index)
        return report

    return run


class ActingEncoder(CountingEncoder):
    """Lets something happen between reading and writing: acts at each call."""

    def __init__(self, act: Callable[[int], None]) -> None:
        super().__init__()
        self._act = act
        self._calls = 0

    def encode(self, texts: Sequence[str], role: Literal["query", "passage"] = "query") -> NDArray[np.float32]:
        self._calls += 1
        self._act(self._calls)
        return super().encode(texts, role)


def acting_models(act: Callable[[int], None]) -> Models:
    toys = toy_models()
    return Models(
        ActingEncoder(act),
        toys.encoder_reference,
        toys.token_spans,
        toys.generator,
        toys.generator_reference,
    )


def test_every_document_is_enriched_and_keeps_its_own_fields(
    backfill: Backfill, client: OpenSearch, fresh_index: str
) -> None:
    old_application(client, fresh_index, 200, _meta={"owner": "shop"})
    report = backfill().report
    assert (report.ledger.written, report.complete, report.exit_code) == (200, True, 0)
    stored = source(client, fresh_index, "d7")
    neural = stored.pop("_neural")
    assert stored == {"title": "title 7", "text": "text of 7", "stock": 0}
    assert neural["predicted_queries"] == ["what is title", "what is 7.", "what is text"]
    state = indices.look(client, fresh_index)
    assert state.mapping["_meta"]["owner"] == "shop"
    assert indices.count_enriched(client, fresh_index, profile_for(toy_models(), TEXT_FIELDS)) == 200


def found_by(client: OpenSearch, index: str, term: str) -> list[str]:
    """Documents that have a term."""
    query = {"rank_feature": {"field": f"_neural.terms.{term}", "linear": {}}}
    hits = client.search(index=index, body={"size": 1000, "query": query})["hits"]["hits"]
    return sorted(hit["_id"] for hit in hits)


def test_terms_follow_a_text_and_none_of_an_earlier_one_stays(
    backfill: Backfill, client: OpenSearch, fresh_index: str
) -> None:
    old_application(client, fresh_index, 20)
    models = models_with_terms()
    backfill(models, from_start=True)
    assert source(client, fresh_index, "d7")["_neural"]["terms"] == [{"title": 5.0, "text": 4.0, "of": 2.0}]
    assert len(found_by(client, fresh_index, "title")) == 20
    client.update(index=fresh_index, id="d7", body={"doc": {"title": "wheelbarrow", "text": "of 7"}}, refresh="true")
    backfill(models, from_start=True)
    assert found_by(client, fresh_index, "wheelbarrow") == ["d7"]
    assert len(found_by(client, fresh_index, "title")) == 19
    client.update(index=fresh_index, id="d7", body={"doc": {"title": "", "text": ""}}, refresh="true")
    backfill(models, from_start=True)
    assert found_by(client, fresh_index, "wheelbarrow") == []


def test_terms_are_added_to_an_index_that_has_none(backfill: Backfill, client: OpenSearch, fresh_index: str) -> None:
    old_application(client, fresh_index, 20)
    backfill()
    assert backfill(models_with_terms(), from_start=True).report.ledger.written == 20
    assert len(found_by(client, fresh_index, "title")) == 20
    profile = indices.look(client, fresh_index).required_profile
    assert profile.sparse is not None
    assert "sparse" not in profile.fusion.weights


def test_terms_are_added_to_an_index_that_had_some_before_an_undo(
    backfill: Backfill, client: OpenSearch, fresh_index: str
) -> None:
    """The field is in the mapping still."""
    old_application(client, fresh_index, 20)
    backfill(models_with_terms())
    undo(client, fresh_index)
    backfill(from_start=True)
    assert indices.look(client, fresh_index).required_profile.sparse is None
    backfill(models_with_terms(), from_start=True)
    assert indices.look(client, fresh_index).required_profile.sparse is not None
    assert len(found_by(client, fresh_index, "title")) == 20


def test_in_place_and_from_files_give_every_document_the_same(
    backfill: Backfill, client: OpenSearch, fresh_index: str, tmp_path: Path
) -> None:
    old_application(client, fresh_index, 150)
    from_files = f"{fresh_index}-from-files"
    profile = profile_for(toy_models(), TEXT_FIELDS)
    own = {f"d{i}": source(client, fresh_index, f"d{i}") for i in range(150)}
    (tmp_path / "corpus.jsonl").write_text("\n".join(json.dumps({"_id": i, **body}) for i, body in own.items()))
    indices.create(client, from_files, profile)
    run_ingest(
        FileDocuments([str(tmp_path / "corpus.jsonl")], FieldChoice(TEXT_FIELDS), max_doc_bytes=10_000),
        Job(
            index=from_files,
            profile=profile,
            models=toy_models(),
            client=client,
            settings=IngestSettings(queries_per_passage=3),
            state_folder=tmp_path / "files",
        ),
    )
    backfill()
    for doc_id in own:
        in_place, written = source(client, fresh_index, doc_id), source(client, from_files, doc_id)
        # A stamp of a file's document also speaks of the rest of its body.
        assert written["_neural"].pop("stamp").startswith(in_place["_neural"].pop("stamp") + ".")
        assert in_place == written
    client.indices.delete(index=from_files)


def test_a_second_run_finds_only_what_changed_or_came(backfill: Backfill, client: OpenSearch, fresh_index: str) -> None:
    old_application(client, fresh_index, 100)
    backfill()
    client.index(index=fresh_index, id="new", body={"title": "new", "text": "came later"})
    client.update(index=fresh_index, id="d3", body={"doc": {"text": "another text"}})
    client.update(index=fresh_index, id="d4", body={"doc": {"stock": 9}})
    client.indices.refresh(index=fresh_index)
    report = backfill().report
    assert (report.ledger.written, report.ledger.unchanged) == (2, 99)


def test_what_a_document_lost_is_taken_from_our_object_too(
    backfill: Backfill, client: OpenSearch, fresh_index: str
) -> None:
    old_application(client, fresh_index, 3)
    backfill()
    client.update(index=fresh_index, id="d1", body={"doc": {"title": "", "text": ""}}, params={"refresh": "true"})
    backfill()
    neural = source(client, fresh_index, "d1")["_neural"]
    assert (neural["predicted_queries"], neural["embedding"]) == (None, None)


@pytest.mark.case("I49")
def test_what_no_search_sees_yet_is_enriched(backfill: Backfill, client: OpenSearch, fresh_index: str) -> None:
    old_application(client, fresh_index, 3)
    client.indices.put_settings(index=fresh_index, body={"index.refresh_interval": "-1"})
    client.index(index=fresh_index, id="d1", body={"title": "changed", "text": "and not refreshed"})
    client.index(index=fresh_index, id="new", body={"title": "new", "text": "and not refreshed"})

    ledger = backfill().report.ledger

    assert (ledger.read, ledger.written) == (4, 4)


@pytest.mark.case("I23")
def test_an_application_that_writes_meanwhile_loses_no_update(
    backfill: Backfill, client: OpenSearch, fresh_index: str
) -> None:
    old_application(client, fresh_index, 400)
    busy = [f"d{i}" for i in range(0, 400, 20)]

    def application(call: int) -> None:
        if call > 9:
            return
        for doc_id in busy:
            body = {"doc": {"stock": call, "text": f"version {call} of {doc_id}"}}
            client.update(index=fresh_index, id=doc_id, body=body)

    report = backfill(acting_models(application))
    assert (report.left, report.report.exit_code) == (0, 0)
    assert report.read_again >= len(busy)
    for doc_id in busy:
        stored = source(client, fresh_index, doc_id)
        assert stored["text"] == f"version {stored['stock']} of {doc_id}"
        assert stored["_neural"]["predicted_queries"][0] == "what is title"
    assert backfill().report.ledger.unchanged == 400


@pytest.mark.case("I29")
def test_a_document_deleted_meanwhile_stays_deleted(backfill: Backfill, client: OpenSearch, fresh_index: str) -> None:
    old_application(client, fresh_index, 130)

    def application(call: int) -> None:
        if call == 1:
            client.delete(index=fresh_index, id="d5")

    report = backfill(acting_models(application)).report
    assert (report.ledger.written, report.ledger.superseded) == (129, 1)
    with pytest.raises(NotFoundError):
        client.get(index=fresh_index, id="d5")
    assert indices.count(client, fresh_index) == 129


@pytest.mark.case("I24")
def test_routed_joined_and_nested_documents_stay_where_they_are(
    backfill: Backfill, client: OpenSearch, fresh_index: str
) -> None:
    properties = {
        **MAPPING,
        "kind": {"type": "join", "relations": {"question": "answer"}},
        "comments": {"type": "nested", "properties": {"by": {"type": "keyword"}}},
    }
    settings = {"index.knn": True, "index.number_of_shards": 3, "index.number_of_replicas": 0}
    client.indices.create(index=fresh_index, body={"settings": settings, "mappings": {"properties": properties}})
    for i in range(30):
        question = {"title": f"question {i}", "text": "why", "kind": "question", "comments": [{"by": "a"}, {"by": "b"}]}
        client.index(index=fresh_index, id=f"q{i}", body=question)
        answer = {"title": f"answer {i}", "text": "because", "kind": {"name": "answer", "parent": f"q{i}"}}
        client.index(index=fresh_index, id=f"a{i}", body=answer, params={"routing": f"q{i}"})
    client.indices.refresh(index=fresh_index)
    nested = profile_for(toy_models(), TEXT_FIELDS, passages=PassageSettings("nested", 5, 1))
    report = backfill(profile=nested).report
    assert (report.ledger.written, indices.count(client, fresh_index)) == (60, 60)
    assert source(client, fresh_index, "a7", routing="q7")["_neural"]["passages"]
    children = {"query": {"has_parent": {"parent_type": "question", "query": {"match": {"title": "7"}}}}}
    assert [hit["_id"] for hit in client.search(index=fresh_index, body=children)["hits"]["hits"]] == ["a7"]
    by_comment = {"query": {"nested": {"path": "comments", "query": {"term": {"comments.by": "b"}}}}, "size": 0}
    assert client.search(index=fresh_index, body=by_comment)["hits"]["total"]["value"] == 30


@pytest.mark.case("I24")
def test_one_id_under_two_routings_is_two_documents_and_both_are_enriched(
    backfill: Backfill, client: OpenSearch, fresh_index: str
) -> None:
    settings = {"index.knn": True, "index.number_of_shards": 2, "index.number_of_replicas": 0}
    client.indices.create(index=fresh_index, body={"settings": settings, "mappings": {"properties": MAPPING}})
    routings = [f"r{i}" for i in range(8)]
    for routing in routings:
        body = {"title": "twin", "text": f"by {routing}"}
        client.index(index=fresh_index, id="twin", body=body, params={"routing": routing, "refresh": "true"})
    assert indices.count(client, fresh_index) == 2, "the routings lead to both shards"
    report = backfill().report
    assert (report.ledger.written, report.ledger.superseded) == (2, 0)
    hits = client.search(index=fresh_index)["hits"]["hits"]
    assert [len(hit["_source"]["_neural"]["embedding"]) for hit in hits] == [4, 4]


@pytest.mark.case("I25")
@pytest.mark.parametrize(
    ("body", "settings", "reason"),
    [
        pytest.param({"_source": {"enabled": False}}, {"knn": True}, "_source is disabled", id="no-source"),
        pytest.param(
            {"_source": {"excludes": ["secret"]}}, {"knn": True}, r"_source\.excludes \(secret\)", id="excludes"
        ),
        pytest.param({}, {"derived_source.enabled": True, "knn": True}, "reconstruction", id="derived-source"),
        pytest.param({}, {}, "index.knn was never set to true", id="no-knn"),
    ],
)
def test_an_index_whose_documents_would_suffer_is_refused_with_the_reason(
    backfill: Backfill,
    client: OpenSearch,
    fresh_index: str,
    body: dict[str, Any],
    settings: dict[str, Any],
    reason: str,
) -> None:
    properties = {"title": {"type": "keyword"}, "text": {"type": "keyword"}}
    client.indices.create(
        index=fresh_index,
        body={
            "settings": {f"index.{name}": value for name, value in settings.items()},
            "mappings": {"properties": properties, **body},
        },
    )
    before = indices.look(client, fresh_index).mapping
    with pytest.raises(IndexUnsuitable, match=reason):
        backfill()
    assert indices.look(client, fresh_index).mapping == before


def test_a_stopped_backfill_goes_on_where_it_was(backfill: Backfill, client: OpenSearch, fresh_index: str) -> None:
    old_application(client, fresh_index, 400)
    stopped = threading.Event()
    first = backfill(stopped=stopped, on_progress=lambda _: stopped.set()).report
    assert not first.complete
    assert 0 < first.ledger.written < 400
    second = backfill().report
    assert (second.ledger.written, second.ledger.unchanged) == (400 - first.ledger.written, first.ledger.written)
