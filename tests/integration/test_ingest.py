"""Ingest into a real OpenSearch: what is written is found, exact, and not written twice."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from opensearchpy import OpenSearch

from bridge.cluster import index as indices
from bridge.cluster.connection import capabilities, connect, exchange
from bridge.errors import IndexUnsuitable
from bridge.node.node import EmbeddedNode
from bridge.profile import IndexProfile, PassageSettings
from bridge.settings import ClusterSettings, IngestSettings
from ingest.books.ledger import Report
from ingest.job import Job
from ingest.runs.ingest import run_ingest, tuned_for_load
from ingest.sources.documents import FieldChoice
from ingest.sources.files import FileDocuments
from ingest.stages.models import profile_for
from tests.ingest.toys import toy_models

FIELDS = FieldChoice(text_fields=["title", "text"])
Ingest = Callable[..., Report]


@pytest.fixture
def client(node: EmbeddedNode) -> OpenSearch:
    return connect(ClusterSettings(url=node.url))


@pytest.fixture
def ingest(client: OpenSearch, fresh_index: str, tmp_path: Path) -> Ingest:
    """Runs ingest with toy models on documents given as JSON lines."""

    def run(lines: list[bytes], profile: IndexProfile, **options: Any) -> Report:
        corpus = tmp_path / "corpus.jsonl"
        corpus.write_bytes(b"\n".join(lines))
        return run_ingest(
            FileDocuments([str(corpus)], FIELDS, max_doc_bytes=100_000),
            Job(
                index=options.pop("index", fresh_index),
                profile=profile,
                models=toy_models(),
                client=client,
                settings=IngestSettings(),
                state_folder=tmp_path / "state",
                **options,
            ),
        )

    return run


def corpus(n: int) -> list[bytes]:
    return [
        json.dumps({"_id": f"d{i}", "title": f"number {i}", "text": "word " * (i % 9 + 1)}).encode() for i in range(n)
    ]


PROFILES = [
    pytest.param(profile_for(toy_models(), FIELDS.text_fields), id="single"),
    pytest.param(profile_for(toy_models(), FIELDS.text_fields, passages=PassageSettings("nested", 5, 2)), id="nested"),
]


def test_capabilities_of_a_real_node(client: OpenSearch) -> None:
    found = capabilities(client)
    assert (found.distribution, found.has_knn) == ("opensearch", True)


@pytest.mark.parametrize("profile", PROFILES)
def test_written_documents_are_found_by_vector_and_by_predicted_query(
    ingest: Ingest, client: OpenSearch, fresh_index: str, profile: IndexProfile
) -> None:
    indices.create(client, fresh_index, profile)
    report = ingest(corpus(300), profile)
    assert (report.ledger.written, report.complete, indices.count(client, fresh_index)) == (300, True, 300)
    assert indices.count_enriched(client, fresh_index, profile) == 300
    by_query = {"query": {"match_phrase": {profile.predicted_queries_field: "what is number"}}}
    assert client.search(index=fresh_index, body=by_query)["hits"]["total"]["value"] == 300
    knn: dict[str, Any] = {"knn": {profile.embedding_field: {"vector": [1.0, 0.0, 0.0, 0.0], "k": 5}}}
    if profile.passages.layout == "nested":
        knn = {"nested": {"path": profile.passages_field, "query": knn}}
    hits = client.search(index=fresh_index, body={"query": knn})["hits"]["hits"]
    assert [hit["_score"] for hit in hits] == pytest.approx([1.0] * 5)


@pytest.mark.parametrize("profile", PROFILES)
def test_a_second_run_finds_nothing_to_do(
    ingest: Ingest, client: OpenSearch, fresh_index: str, profile: IndexProfile
) -> None:
    indices.create(client, fresh_index, profile)
    ingest(corpus(200), profile)
    report = ingest(corpus(201), profile)
    assert (report.ledger.unchanged, report.ledger.written) == (200, 1)


def test_digits_and_unknown_fields_are_in_the_source_as_they_came(
    ingest: Ingest, client: OpenSearch, fresh_index: str
) -> None:
    profile = profile_for(toy_models(), FIELDS.text_fields)
    exact = b'"big":123456789012345678,"odd":1.10000000000000000001,"deep":{"routing":"r","e":1e5}'
    indices.create(client, fresh_index, profile)
    ingest([b'{"_id":"n","title":"numbers",' + exact + b"}"], profile)
    answer = exchange(client, "GET", f"/{fresh_index}/_doc/n")
    assert exact in answer.body


@pytest.mark.case("I22")
def test_an_index_that_was_not_made_for_vectors_is_refused(
    ingest: Ingest, client: OpenSearch, fresh_index: str
) -> None:
    client.indices.create(index=fresh_index, body={"mappings": {"properties": {"title": {"type": "text"}}}})
    with pytest.raises(IndexUnsuitable, match=r"_neural\.embedding is not in the mapping"):
        ingest(corpus(3), profile_for(toy_models(), FIELDS.text_fields))
    assert indices.count(client, fresh_index) == 0


def test_an_index_that_exists_is_not_created_again(client: OpenSearch, fresh_index: str) -> None:
    profile = profile_for(toy_models(), FIELDS.text_fields)
    indices.create(client, fresh_index, profile)
    with pytest.raises(IndexUnsuitable, match="exists already"):
        indices.create(client, fresh_index, profile)


@pytest.mark.case("I5")
def test_a_document_that_the_mapping_refuses_is_a_dead_letter(
    ingest: Ingest, client: OpenSearch, fresh_index: str
) -> None:
    profile = profile_for(toy_models(), FIELDS.text_fields)
    indices.create(client, fresh_index, profile, properties={"price": {"type": "integer"}})
    report = ingest([*corpus(20), b'{"_id":"bad","title":"x","price":"dear"}'], profile)
    assert (report.ledger.written, report.ledger.dead_lettered, report.exit_code) == (20, 1, 3)


def refresh_interval(client: OpenSearch, index: str) -> object:
    return indices.look(client, index).settings.get("refresh_interval")


@pytest.mark.case("I38")
@pytest.mark.parametrize("interval", [None, "30s"])
def test_an_index_gets_its_refresh_interval_back_also_after_a_kill(
    ingest: Ingest, client: OpenSearch, fresh_index: str, interval: str | None
) -> None:
    profile = profile_for(toy_models(), FIELDS.text_fields)
    indices.create(client, fresh_index, profile, settings={"index.refresh_interval": interval} if interval else None)
    meta = indices.look(client, fresh_index).mapping["_meta"]
    killed = tuned_for_load(client, fresh_index, is_empty=True)
    killed.__enter__()
    assert refresh_interval(client, fresh_index) == "-1"
    report = ingest(corpus(100), profile)
    assert report.complete
    assert refresh_interval(client, fresh_index) == interval
    assert indices.look(client, fresh_index).mapping["_meta"] == meta
    killed.__exit__(None, None, None)
    assert refresh_interval(client, fresh_index) == interval


@pytest.mark.case("I38")
@pytest.mark.parametrize("own", [None, 2])
def test_an_index_has_fewer_replicas_while_it_is_filled_where_that_is_asked_for(
    client: OpenSearch, fresh_index: str, own: int | None
) -> None:
    def replicas() -> object:
        return indices.look(client, fresh_index).settings["number_of_replicas"]

    profile = profile_for(toy_models(), FIELDS.text_fields)
    indices.create(client, fresh_index, profile, settings={"index.number_of_replicas": own} if own else None)
    before = replicas()

    with tuned_for_load(client, fresh_index, is_empty=True):
        assert replicas() == before
    with tuned_for_load(client, fresh_index, is_empty=False, replicas=0):
        assert replicas() == before
    killed = tuned_for_load(client, fresh_index, is_empty=True, replicas=0)
    killed.__enter__()
    assert replicas() == "0"
    with tuned_for_load(client, fresh_index, is_empty=False, replicas=0):
        assert replicas() == "0"

    assert replicas() == before
    killed.__exit__(None, None, None)
    assert replicas() == before


def test_an_index_that_follows_the_number_of_nodes_keeps_its_replicas(client: OpenSearch, fresh_index: str) -> None:
    profile = profile_for(toy_models(), FIELDS.text_fields)
    indices.create(client, fresh_index, profile, settings={"index.auto_expand_replicas": "0-1"})
    with tuned_for_load(client, fresh_index, is_empty=True, replicas=5):
        assert indices.look(client, fresh_index).settings["number_of_replicas"] != "5"


@pytest.mark.case("I31")
def test_an_alias_is_written_through_and_a_closed_or_read_only_index_is_refused(
    ingest: Ingest, client: OpenSearch, fresh_index: str
) -> None:
    profile = profile_for(toy_models(), FIELDS.text_fields)
    indices.create(client, fresh_index, profile)
    client.indices.put_settings(index=fresh_index, body={"index.blocks.write": True})
    with pytest.raises(IndexUnsuitable, match=r"index\.blocks\.write"):
        ingest(corpus(3), profile)
    client.indices.put_settings(index=fresh_index, body={"index.blocks.write": None})
    client.indices.close(index=fresh_index)
    with pytest.raises(IndexUnsuitable, match="is closed"):
        ingest(corpus(3), profile)
    client.indices.open(index=fresh_index)
    alias = f"{fresh_index}-alias"
    client.indices.put_alias(index=fresh_index, name=alias)
    assert ingest(corpus(3), profile, index=alias).index == fresh_index


@pytest.mark.case("I22")
def test_a_strict_mapping_takes_our_object(ingest: Ingest, client: OpenSearch, fresh_index: str) -> None:
    profile = profile_for(toy_models(), FIELDS.text_fields)
    indices.create(client, fresh_index, profile, dynamic="strict")
    report = ingest([*corpus(12), b'{"_id":"more","title":"x","colour":"red"}'], profile)
    assert (report.ledger.written, report.ledger.dead_lettered) == (12, 1)
