"""What an application deleted leaves the companion a page at a time, across restarts."""

from collections.abc import Iterator
from pathlib import Path
from signal import SIGTERM
from typing import Any
from urllib.parse import quote

import pytest
from opensearchpy import OpenSearch

from bridge.cluster import companion
from bridge.cluster import index as indices
from bridge.cluster.connection import Answer, connect, exchange
from bridge.node.node import EmbeddedNode
from bridge.settings import ClusterSettings
from ingest.follow.fields import followed_profile
from ingest.follow.follower import Follower
from ingest.follow.state import FollowState
from ingest.follow.sweep import Sweep
from ingest.job import Job
from ingest.runs.beside import run_beside
from ingest.signals import StopRequest
from ingest.sources.index import IndexDocuments
from ingest.stages.models import profile_for
from tests.ingest.application import TEXT_FIELDS, old_application
from tests.ingest.follow.test_follower import FAST
from tests.ingest.toys import toy_models

PREFIX = "neural-bridge."


@pytest.fixture
def client(node: EmbeddedNode) -> OpenSearch:
    return connect(ClusterSettings(url=node.url))


@pytest.fixture
def enriched_index(client: OpenSearch, fresh_index: str) -> Iterator[str]:
    """An index of an application; a companion that the test makes goes with it."""
    yield fresh_index
    companion.remove(client, fresh_index, PREFIX)


def companion_job(client: OpenSearch, index: str, folder: Path) -> Job:
    """Makes the companion of an index; the job that writes there."""
    run_beside(Job(index, profile_for(toy_models(), TEXT_FIELDS), toy_models(), client, FAST, folder), PREFIX)
    ours = companion.find(client, index, PREFIX)
    assert ours is not None
    assert ours.profile is not None
    return Job(ours.name, ours.profile, toy_models(), client, FAST, folder)


def test_a_sweep_goes_on_where_it_was_and_looks_at_what_was_deleted_since_once_more(
    client: OpenSearch, enriched_index: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ingest.follow.sweep.PAGE_DOCUMENTS", 10)
    old_application(client, enriched_index, 25, knn=False)
    job = companion_job(client, enriched_index, tmp_path)
    source = IndexDocuments(client, enriched_index, TEXT_FIELDS, text_fields=TEXT_FIELDS)

    def sweep() -> Sweep:
        return Sweep(job, source, FollowState(tmp_path, index="both", recipe="r1"))

    def left() -> int:
        client.indices.refresh(index=job.index)
        return indices.count(client, job.index)

    first = sweep()
    for doc_id in ("d1", "d12", "d24"):
        client.delete(index=enriched_index, id=doc_id)
    first.go_on()
    assert (first.removed, left()) == (1, 24)
    second = sweep()
    client.delete(index=enriched_index, id="d2")
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


def test_a_follower_that_is_asked_to_stop_ends_its_turn_although_the_cluster_does_not_answer_the_sweep(
    client: OpenSearch, enriched_index: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old_application(client, enriched_index, 3, knn=False)
    job = companion_job(client, enriched_index, tmp_path)
    profile = followed_profile(indices.look(client, job.index), None, job.models)
    stop = StopRequest()

    def without_shards(cluster: OpenSearch, method: str, path: str, **options: Any) -> Answer:
        if "point_in_time" in path and quote(job.index) in path:
            # As while the companion is deleted.
            stop.ask(SIGTERM)
            return Answer(503, {}, b"{}")
        return exchange(cluster, method, path, **options)

    with Follower(Job(job.index, profile, job.models, client, FAST, tmp_path / "follow"), stop) as follower:
        follower.follow(once=True)
        client.delete(index=enriched_index, id="d1")
        monkeypatch.setattr("ingest.sources.index.exchange", without_shards)
        assert (follower.follow().removed, stop.number) == (0, SIGTERM)
