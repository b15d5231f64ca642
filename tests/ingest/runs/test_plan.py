"""A plan foresees what enriching an index would mean, and changes nothing."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from opensearchpy import OpenSearch

from bridge.cluster import index as indices
from bridge.cluster.connection import connect
from bridge.cluster.schema import Bm25
from bridge.errors import IndexUnsuitable
from bridge.node.node import EmbeddedNode
from bridge.settings import ClusterSettings
from ingest.books.ledger import Report
from ingest.runs.plan import Plan
from ingest.sources.documents import FieldChoice
from ingest.stages.models import profile_for
from tests.ingest.application import TEXT_FIELDS, backfilled, old_application, planned
from tests.ingest.toys import toy_models

FIELDS = FieldChoice(TEXT_FIELDS)
PROFILE = profile_for(toy_models(), TEXT_FIELDS)


@pytest.fixture
def client(node: EmbeddedNode) -> OpenSearch:
    return connect(ClusterSettings(url=node.url))


def backfill(client: OpenSearch, index: str, state_folder: Path) -> Report:
    return backfilled(client, index, toy_models(), PROFILE, state_folder)


def plan_of(client: OpenSearch, index: str, **options: Any) -> Plan:
    return planned(client, index, toy_models(), PROFILE, sample=50, **options)


def test_plan_foresees_work_and_growth_and_changes_nothing(client: OpenSearch, fresh_index: str) -> None:
    old_application(client, fresh_index, 200)
    before = indices.look(client, fresh_index)
    found = plan_of(client, fresh_index)
    assert (found.way, found.documents, found.stale, found.sampled, found.passages) == ("in_place", 200, 200, 50, 200)
    assert found.hours > 0
    assert found.vector_memory_bytes == round(200 * 1.1 * (4 + 8 * 16))
    stats = client.indices.stats(index=fresh_index, metric="store")["_all"]["primaries"]
    assert found.store_bytes == stats["store"]["size_in_bytes"]
    assert found.index_growth_bytes > 200 * 4
    assert list(found.mapping) == ["_neural"]
    assert found.bm25 == Bm25()
    assert indices.look(client, fresh_index) == before


def test_a_plan_tells_of_texts_in_a_language_that_the_encoder_does_not_read(
    client: OpenSearch, fresh_index: str
) -> None:
    old_application(client, fresh_index, 0)
    german = "Die Schuhe sind aus Gummi und halten das Wasser ab, wenn es auf der Wiese nass ist."
    for doc_id in ("a", "b"):
        client.index(index=fresh_index, id=doc_id, body={"title": "Schuhe", "text": german}, params={"refresh": "true"})

    risks = {
        language: planned(client, fresh_index, replace(toy_models(), languages=[language]), PROFILE).risks
        for language in ("en", "de")
    }

    [risk] = risks["en"]
    assert risk.startswith("texts look German (100% of those whose language is known), and toy-encoder reads English")
    assert risks["de"] == []


def test_a_plan_beside_foresees_the_same_work_in_a_new_index(client: OpenSearch, fresh_index: str) -> None:
    old_application(client, fresh_index, 60, knn=False)
    before = indices.look(client, fresh_index)
    found = plan_of(client, fresh_index, prefix="ours.")
    assert (found.way, found.companion) == ("beside", f"ours.{fresh_index}")
    assert found.reasons == ["index.knn was never set to true, which is only possible when an index is created"]
    assert (found.documents, found.stale, found.passages) == (60, 60, 60)
    assert found.mapping.keys() == {"_neural", *TEXT_FIELDS}
    assert indices.look(client, fresh_index) == before
    assert not client.indices.exists(index=f"ours.{fresh_index}")


def test_plan_of_an_enriched_index_finds_nothing_to_do(client: OpenSearch, fresh_index: str, tmp_path: Path) -> None:
    old_application(client, fresh_index, 60)
    backfill(client, fresh_index, tmp_path)
    found = plan_of(client, fresh_index)
    assert (found.stale, found.passages, found.mapping) == (0, 0, {})


def test_plan_in_place_names_each_obstacle(client: OpenSearch, fresh_index: str) -> None:
    body = {"mappings": {"_source": {"excludes": ["secret"]}, "properties": {"title": {"type": "text"}}}}
    client.indices.create(index=fresh_index, body=body)
    with pytest.raises(IndexUnsuitable, match=r"(?s)_source\.excludes.*text is not in the mapping"):
        plan_of(client, fresh_index, wanted="in_place")
