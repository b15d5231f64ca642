"""What an application deleted leaves the companion a page at a time, across restarts."""

from pathlib import Path

import pytest
from opensearchpy import OpenSearch

from bridge.cluster import companion
from bridge.cluster import index as indices
from bridge.cluster.connection import connect
from bridge.node.node import EmbeddedNode
from bridge.settings import ClusterSettings
from ingest.follow.state import FollowState
from ingest.follow.sweep import Sweep
from ingest.job import Job
from ingest.runs.beside import run_beside
from ingest.sources.index import IndexDocuments
from ingest.stages.models import profile_for
from tests.ingest.application import TEXT_FIELDS, old_application
from tests.ingest.follow.test_follower import FAST
from tests.ingest.toys import toy_models

PREFIX = "neural-bridge."


@pytest.fixture
def client(node: EmbeddedNode) -> OpenSearch:
    return connect(ClusterSettings(url=node.url))


def test_a_sweep_goes_on_where_it_was_and_looks_at_what_was_deleted_since_once_more(
    client: OpenSearch, fresh_index: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ingest.follow.sweep.PAGE_DOCUMENTS", 10)
    old_application(client, fresh_index, 25, knn=False)
    run_beside(Job(fresh_index, profile_for(toy_models(), TEXT_FIELDS), toy_models(), client, FAST, tmp_path), PREFIX)
    ours = companion.find(client, fresh_index, PREFIX)
    assert ours is not None
    assert ours.profile is not None
    job = Job(ours.name, ours.profile, toy_models(), client, FAST, tmp_path)
    source = IndexDocuments(client, fresh_index, TEXT_FIELDS, text_fields=TEXT_FIELDS)

    def sweep() -> Sweep:
        return Sweep(job, source, FollowState(tmp_path, index="both", recipe="r1"))

    def left() -> int:
        client.indices.refresh(index=ours.name)
        return indices.count(client, ours.name)

    try:
        first = sweep()
        for doc_id in ("d1", "d12", "d24"):
            client.delete(index=fresh_index, id=doc_id)
        first.go_on()
        assert (first.removed, left()) == (1, 24)
        second = sweep()
        client.delete(index=fresh_index, id="d2")
        second.go_on()
        second.go_on()
        assert (second.removed, left(), second.is_due) == (2, 22, False)
        second.go_on()
        assert left() == 22, "nobody noted that more may have been deleted"
        state = FollowState(tmp_path, index="both", recipe="r1")
        state.note_deletions()
        third = Sweep(job, source, state)
        while third.is_due:
            third.go_on()
        assert (third.removed, left()) == (1, 21)
    finally:
        companion.remove(client, fresh_index, PREFIX)
