"""What an application writes and deletes reaches the companion of its index, and nothing reaches the index."""

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from opensearchpy import OpenSearch

from bridge.cluster import companion
from bridge.cluster import index as indices
from bridge.cluster.connection import connect
from bridge.cluster.shard_progress import index_progress
from bridge.errors import IndexUnsuitable
from bridge.node.node import EmbeddedNode
from bridge.profile import companion_of
from bridge.settings import ClusterSettings
from ingest.follow.fields import followed_profile
from ingest.follow.pair import FollowerPair
from ingest.follow.state import FollowStatus
from ingest.job import Job
from ingest.runs.beside import run_beside
from ingest.signals import StopRequest
from ingest.stages.models import Models, profile_for
from tests.ingest.application import TEXT_FIELDS, old_application
from tests.ingest.follow.test_follower import FAST, eventually, is_enriched
from tests.ingest.follow.test_pair import HeldGenerator
from tests.ingest.toys import CountingEncoder, toy_models

PREFIX = "neural-bridge."
N_DOCUMENTS = 40


@pytest.fixture
def client(node: EmbeddedNode) -> OpenSearch:
    return connect(ClusterSettings(url=node.url))


@pytest.fixture
def ours(client: OpenSearch, fresh_index: str, tmp_path: Path) -> Iterator[str]:
    """The companion of an index as an application makes it that knows nothing of k-NN."""
    old_application(client, fresh_index, N_DOCUMENTS, knn=False)
    enrich(client, fresh_index, tmp_path / "backfill")
    yield companion_of(fresh_index, PREFIX)
    client.indices.delete(index=companion_of(fresh_index, PREFIX), params={"ignore_unavailable": "true"})


def enrich(client: OpenSearch, index: str, folder: Path) -> None:
    models = toy_models()
    run_beside(Job(index, profile_for(models, TEXT_FIELDS), models, client, FAST, folder), PREFIX)


def followers(
    client: OpenSearch, index: str, folder: Path, models: Models | None = None, stop: StopRequest | None = None
) -> FollowerPair:
    ours, models = companion.find(client, index, PREFIX), models or toy_models()
    assert ours is not None
    job = Job(ours.name, followed_profile(ours, None, models), models, client, FAST, folder)
    return FollowerPair(job, stop or StopRequest())


def caught_up(client: OpenSearch, index: str, folder: Path, models: Models | None = None) -> list[FollowStatus]:
    with followers(client, index, folder, models) as following:
        return following.follow(once=True)


def entries(client: OpenSearch, ours: str) -> dict[str, dict[str, Any]]:
    """What the companion holds, by id."""
    client.indices.refresh(index=ours)
    hits = client.search(index=ours, body={"size": 1000})["hits"]["hits"]
    return {hit["_id"]: hit["_source"]["_neural"] for hit in hits}


def fits(client: OpenSearch, index: str, entry: dict[str, Any] | None, doc_id: str) -> bool:
    """Whether an entry is of what the document says now."""
    source = client.get(index=index, id=doc_id)["_source"]
    return entry is not None and is_enriched({**source, "_neural": entry})


def n_with_vectors(client: OpenSearch, ours: str) -> int:
    client.indices.refresh(index=ours)
    return int(client.count(index=ours, body={"query": {"exists": {"field": "_neural.embedding"}}})["count"])


def test_what_was_written_and_deleted_reaches_the_companion_and_the_index_stays_the_application_s(
    client: OpenSearch, fresh_index: str, ours: str, tmp_path: Path
) -> None:
    state = tmp_path / "state"
    assert [each.ledger.written for each in caught_up(client, fresh_index, state)] == [0, 0]
    before = entries(client, ours)
    client.index(index=fresh_index, id="new", body={"title": "new", "text": "came later"})
    client.index(index=fresh_index, id="d1", body={"title": "whole", "text": "replaced"})
    client.update(index=fresh_index, id="d2", body={"doc": {"text": "another text"}})
    client.update(index=fresh_index, id="d3", body={"doc": {"stock": 9}})
    external = {"version": 70_000, "version_type": "external"}
    client.index(index=fresh_index, id="row", body={"title": "a row", "text": "x"}, params=external)
    client.delete(index=fresh_index, id="d5")
    client.delete(index=fresh_index, id="d6")
    written = index_progress(client, fresh_index).shards
    vectors, queries = caught_up(client, fresh_index, state)
    assert index_progress(client, fresh_index).shards == written
    assert (vectors.ledger.written, queries.ledger.written, vectors.removed + queries.removed) == (4, 4, 2)
    after = entries(client, ours)
    assert after.keys() == before.keys() - {"d5", "d6"} | {"new", "row"}
    assert all(fits(client, fresh_index, entry, doc_id) for doc_id, entry in after.items())
    assert n_with_vectors(client, ours) == len(after)
    assert after["d3"] == before["d3"], "its text is the same"
    assert [each.ledger.read for each in caught_up(client, fresh_index, state)] == [0, 0]


def test_an_index_that_nobody_refreshes_is_read_to_its_last_change(
    client: OpenSearch, fresh_index: str, ours: str, tmp_path: Path
) -> None:
    caught_up(client, fresh_index, tmp_path / "state")
    client.indices.put_settings(index=fresh_index, body={"index.refresh_interval": "-1"})
    client.index(index=fresh_index, id="new", body={"title": "new", "text": "that no search can see"})
    caught_up(client, fresh_index, tmp_path / "state")
    assert fits(client, fresh_index, entries(client, ours).get("new"), "new")


def test_vectors_do_not_wait_for_queries_and_what_is_deleted_meanwhile_stays_away(
    client: OpenSearch, fresh_index: str, ours: str, tmp_path: Path
) -> None:
    generator, encoder, stop = HeldGenerator(), CountingEncoder(), StopRequest()
    models = replace(toy_models(), generator=generator, encoder=encoder)
    with followers(client, fresh_index, tmp_path / "state", models, stop) as following:
        thread = threading.Thread(target=following.follow)
        thread.start()
        try:
            client.index(index=fresh_index, id="gone", body={"title": "gone", "text": "holds the generator"})
            assert generator.asked.wait(300)
            client.index(index=fresh_index, id="new", body={"title": "new", "text": "came while it was held"})
            client.delete(index=fresh_index, id="gone")
            eventually(lambda: entries(client, ours).keys() >= {"new"} and "gone" not in entries(client, ours))
            assert "predicted_queries" not in entries(client, ours)["new"]
            assert n_with_vectors(client, ours) == N_DOCUMENTS + 1
            generator.go.set()
            eventually(lambda: fits(client, fresh_index, entries(client, ours)["new"], "new"))
            eventually(lambda: following.status()[1].lag_s < 5)
            assert "gone" not in entries(client, ours)
            assert n_with_vectors(client, ours) == N_DOCUMENTS + 1
        finally:
            generator.go.set()
            stop.ask(15)
            thread.join(300)
    assert not thread.is_alive()


def test_what_is_gone_ends_it_and_is_never_made_again(
    client: OpenSearch, fresh_index: str, ours: str, tmp_path: Path
) -> None:
    with followers(client, fresh_index, tmp_path / "state") as following:
        client.update(index=fresh_index, id="d1", body={"doc": {"text": "another text"}})
        companion.remove(client, fresh_index, PREFIX)
        with pytest.raises(IndexUnsuitable, match=f"{ours} does not exist"):
            following.follow(once=True)
        assert not client.indices.exists(index=ours)
    enrich(client, fresh_index, tmp_path / "again")
    with followers(client, fresh_index, tmp_path / "state") as following:
        client.indices.delete(index=fresh_index)
        with pytest.raises(IndexUnsuitable, match="does not exist or is closed"):
            following.follow(once=True)
    assert not client.indices.exists(index=fresh_index)
    old_application(client, fresh_index, 3, knn=False)
    with pytest.raises(IndexUnsuitable, match="made from an earlier index"):
        followers(client, fresh_index, tmp_path / "state")
    assert indices.count(client, ours) == N_DOCUMENTS
