"""An application's index is enriched in its companion: nothing of the application's is lost, nor even touched."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from opensearchpy import OpenSearch

from bridge.cluster import companion
from bridge.cluster import index as indices
from bridge.cluster.connection import connect
from bridge.cluster.index import IndexState
from bridge.cluster.shard_progress import index_progress
from bridge.errors import IndexUnsuitable
from bridge.node.node import EmbeddedNode
from bridge.profile import PassageSettings
from bridge.settings import ClusterSettings, IngestSettings
from ingest.job import Job
from ingest.runs.backfill import run_backfill
from ingest.runs.beside import BesideReport, run_beside
from ingest.stages.models import Models, profile_for
from tests.ingest.application import TEXT_FIELDS, backfilled, old_application
from tests.ingest.runs.test_backfill import acting_models
from tests.ingest.toys import models_with_terms, toy_models

Run = Callable[..., BesideReport]
PREFIX = "neural-bridge."
SETTINGS = IngestSettings(queries_per_passage=3)


@pytest.fixture
def client(node: EmbeddedNode) -> OpenSearch:
    return connect(ClusterSettings(url=node.url))


@pytest.fixture
def beside(client: OpenSearch, fresh_index: str, ours: str, tmp_path: Path) -> Run:
    def run(models: Models | None = None, passages: PassageSettings | None = None, **options: Any) -> BesideReport:
        models = models or toy_models()
        profile = profile_for(models, TEXT_FIELDS, passages=passages)
        return run_beside(Job(fresh_index, profile, models, client, SETTINGS, tmp_path / "state", **options), PREFIX)

    return run


def plain(client: OpenSearch, index: str, n: int, **body: Any) -> None:
    """An index as an application makes it that knows nothing of k-NN."""
    old_application(client, index, n, knn=False, **body)


def test_terms_are_searched_in_a_companion_and_not_stored(
    beside: Run, client: OpenSearch, fresh_index: str, ours: str
) -> None:
    plain(client, fresh_index, 20)
    beside(models_with_terms())
    assert "terms" not in stored(client, ours)["d7"]["_source"]["_neural"]
    query = {"rank_feature": {"field": "_neural.terms.title", "linear": {}}}
    hits = client.search(index=ours, body={"query": query, "size": 1000})["hits"]["hits"]
    assert len(hits) == 20
    assert {hit["_score"] for hit in hits} == {5.0}


def as_it_is(client: OpenSearch, index: str) -> dict[str, Any]:
    """All that an application can know of its index."""
    client.indices.refresh(index=index)
    hits = client.search(
        index=index,
        body={"size": 1000, "version": True, "seq_no_primary_term": True, "sort": [{"_id": "asc"}]},
    )["hits"]["hits"]
    state = client.indices.get(index=index)[index]
    return {"state": state, "hits": hits, "shards": index_progress(client, index).shards}


def stored(client: OpenSearch, index: str) -> dict[str, dict[str, Any]]:
    client.indices.refresh(index=index)
    hits = client.search(index=index, body={"size": 1000, "version": True})["hits"]["hits"]
    return {hit["_id"]: hit for hit in hits}


def test_every_document_is_enriched_and_the_application_s_index_stays_as_it_was(
    beside: Run, client: OpenSearch, fresh_index: str, ours: str
) -> None:
    plain(client, fresh_index, 200, dynamic="strict", _meta={"owner": "shop"})
    client.indices.put_alias(index=fresh_index, name=f"{fresh_index}-alias", body={"filter": {"term": {"stock": 0}}})
    before, all_before = as_it_is(client, fresh_index), client.cat.indices(params={"h": "index,docs.count"})
    done = beside()
    assert (done.report.ledger.written, done.report.complete, done.removed) == (200, True, 0)
    assert as_it_is(client, fresh_index) == before
    source = stored(client, ours)["d7"]["_source"]
    neural = source.pop("_neural")
    assert (source, neural.keys()) == ({}, {"stamp", "id", "predicted_queries"})
    assert neural["predicted_queries"] == ["what is title", "what is 7.", "what is text"]
    assert client.search(index=ours, body={"query": {"match": {"text": "text"}}})["hits"]["total"]["value"] == 200
    assert companion.remove(client, fresh_index, PREFIX) == 200
    assert as_it_is(client, fresh_index) == before
    assert client.cat.indices(params={"h": "index,docs.count"}) == all_before


@pytest.mark.parametrize("layout", ["single", "nested"])
def test_beside_and_in_place_make_the_same(
    beside: Run, client: OpenSearch, fresh_index: str, ours: str, tmp_path: Path, layout: Any
) -> None:
    old_application(client, fresh_index, 80)
    passages = PassageSettings(layout)
    beside(passages=passages)
    state = indices.look(client, ours)
    assert state.profile is not None
    vectors: dict[str, Any] = {"exists": {"field": state.profile.embedding_field}}
    if layout == "nested":
        vectors = {"nested": {"path": state.profile.passages_field, "query": vectors}}
    assert client.count(index=ours, body={"query": vectors})["count"] == 80
    ranked = {"query": {"multi_match": {"query": "texts 7", "fields": ["title", "text^2"]}}, "size": 80}
    of_application, of_companion = (
        {hit["_id"]: hit["_score"] for hit in client.search(index=index, body=ranked)["hits"]["hits"]}
        for index in (fresh_index, ours)
    )
    assert of_companion == of_application
    made = stored(client, ours)
    profile = profile_for(toy_models(), TEXT_FIELDS, passages=passages)
    run_backfill(Job(fresh_index, profile, toy_models(), client, SETTINGS, tmp_path / "in-place"))
    in_place = stored(client, fresh_index)
    for doc_id, hit in made.items():
        assert hit["_source"]["_neural"]["stamp"] == in_place[doc_id]["_source"]["_neural"]["stamp"]


def test_a_second_run_writes_only_what_changed_came_or_went(
    beside: Run, client: OpenSearch, fresh_index: str, ours: str
) -> None:
    plain(client, fresh_index, 100)
    beside()
    again = beside()
    assert (again.report.ledger.written, again.report.ledger.unchanged, again.removed) == (0, 100, 0)
    before = stored(client, ours)
    client.index(index=fresh_index, id="new", body={"title": "new", "text": "came later"})
    client.update(index=fresh_index, id="d1", body={"doc": {"text": "another text"}})
    client.update(index=fresh_index, id="d2", body={"doc": {"stock": 5}})
    client.delete(index=fresh_index, id="d3", params={"refresh": "true"})
    third = beside()
    assert (third.report.ledger.written, third.removed) == (2, 1)
    after = stored(client, ours)
    assert after.keys() == before.keys() - {"d3"} | {"new"}
    assert {doc_id for doc_id in before.keys() & after.keys() if before[doc_id] != after[doc_id]} == {"d1"}


def test_what_the_application_writes_and_deletes_meanwhile_arrives(
    beside: Run, client: OpenSearch, fresh_index: str, ours: str
) -> None:
    plain(client, fresh_index, 300)

    def act(call: int) -> None:
        if call == 2:
            client.update(index=fresh_index, id="d0", body={"doc": {"text": "changed behind the reader"}})
            client.update(index=fresh_index, id="d299", body={"doc": {"text": "changed before the reader"}})
            client.delete(index=fresh_index, id="d1")
            client.delete(index=fresh_index, id="d298")
            external = {"version": 70_000, "version_type": "external"}
            client.index(index=fresh_index, id="row", body={"title": "a row", "text": "x"}, params=external)
            client.indices.refresh(index=fresh_index)

    done = beside(acting_models(act))
    assert done.report.complete
    assert done.removed == 2
    found = stored(client, ours)
    assert found.keys() == stored(client, fresh_index).keys()
    now = stored(client, fresh_index)
    assert now["row"]["_version"] == 70_000
    for doc_id in ("d0", "d299", "row"):
        assert (
            client.search(index=ours, body={"query": {"match_phrase": {"text": now[doc_id]["_source"]["text"]}}})[
                "hits"
            ]["hits"][0]["_id"]
            == doc_id
        )
    assert "_neural" not in now["d0"]["_source"]
    again = beside()
    assert (again.report.ledger.written, again.removed) == (0, 0)


@pytest.mark.case("I49")
def test_what_no_search_sees_yet_is_enriched(beside: Run, client: OpenSearch, fresh_index: str, ours: str) -> None:
    plain(client, fresh_index, 3)
    client.indices.put_settings(index=fresh_index, body={"index.refresh_interval": "-1"})
    client.index(index=fresh_index, id="new", body={"title": "new", "text": "and not refreshed"})

    beside()

    assert sorted(stored(client, ours)) == ["d0", "d1", "d2", "new"]


@pytest.mark.case("I50")
def test_a_companion_that_another_run_makes_meanwhile_is_used(
    beside: Run, client: OpenSearch, fresh_index: str, ours: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain(client, fresh_index, 3)
    create = companion.create

    def a_moment_too_late(*wanted: Any) -> IndexState:
        create(*wanted)
        return create(*wanted)

    monkeypatch.setattr(companion, "create", a_moment_too_late)
    beside()

    assert sorted(stored(client, ours)) == ["d0", "d1", "d2"]


def test_a_slower_writer_of_an_older_text_is_too_late(
    beside: Run, client: OpenSearch, fresh_index: str, ours: str
) -> None:
    plain(client, fresh_index, 10)
    beside()
    client.index(index=ours, id="d1", body={"title": "newer"}, params={"version": 50, "version_type": "external_gte"})
    client.update(index=fresh_index, id="d1", body={"doc": {"text": "older"}}, params={"refresh": "true"})
    late = beside()
    assert (late.report.ledger.superseded, late.report.ledger.written) == (1, 0)
    assert stored(client, ours)["d1"]["_version"] == 50


def test_routed_documents_of_one_id_stay_two(beside: Run, client: OpenSearch, fresh_index: str, ours: str) -> None:
    mapping = {"properties": {name: {"type": "text"} for name in TEXT_FIELDS}, "_routing": {"required": True}}
    client.indices.create(index=fresh_index, body={"settings": {"number_of_shards": 3}, "mappings": mapping})
    for routing in ("a", "b", "c", "d"):
        document = {"title": f"of {routing}", "text": ""}
        client.index(index=fresh_index, id="1", body=document, params={"routing": routing, "refresh": "true"})
    n = client.count(index=fresh_index)["count"]
    assert n > 1
    done = beside()
    assert (done.report.ledger.written, done.removed) == (n, 0)
    assert client.count(index=ours)["count"] == n


def test_an_index_that_was_made_anew_gets_a_new_companion(
    beside: Run, client: OpenSearch, fresh_index: str, ours: str
) -> None:
    plain(client, fresh_index, 20)
    beside()
    client.indices.delete(index=fresh_index)
    plain(client, fresh_index, 5)
    assert beside().report.ledger.written == 5
    assert stored(client, ours).keys() == {f"d{i}" for i in range(5)}


def test_what_cannot_be_read_is_refused_and_nothing_is_made(
    beside: Run, client: OpenSearch, fresh_index: str, ours: str, tmp_path: Path
) -> None:
    plain(client, fresh_index, 5, _source={"excludes": ["te*"]})
    with pytest.raises(IndexUnsuitable, match="text field text is not stored"):
        beside()
    assert not client.indices.exists(index=ours)
    client.indices.delete(index=fresh_index)
    old_application(client, fresh_index, 5)
    backfilled(client, fresh_index, toy_models(), profile_for(toy_models(), TEXT_FIELDS), tmp_path)
    with pytest.raises(IndexUnsuitable, match="is enriched in place"):
        beside()
    assert not client.indices.exists(index=ours)
