"""Two followers of one index: vectors come first, predicted queries when there is time, and nothing is made twice."""

import threading
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from opensearchpy import OpenSearch

from bridge.cluster import index as indices
from bridge.cluster.connection import connect
from bridge.cluster.removal import undo
from bridge.errors import CheckpointUnusable, IndexUnsuitable
from bridge.node.node import EmbeddedNode
from bridge.settings import ClusterSettings
from ingest.follow.fields import followed_profile
from ingest.follow.pair import FollowerPair, Priority, WaitingGenerator
from ingest.follow.state import FollowStatus
from ingest.job import Job
from ingest.signals import StopRequest
from ingest.stages.models import Models
from tests.ingest.application import old_application, source
from tests.ingest.follow.test_follower import FAST, backfill, eventually, is_enriched
from tests.ingest.follow.test_follower import caught_up as all_at_once
from tests.ingest.toys import CountingEncoder, EchoGenerator, toy_models

N_DOCUMENTS = 30


class HeldGenerator(EchoGenerator):
    """Predicts nothing before it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = threading.Event()
        self.go = threading.Event()

    def generate(self, passages: Sequence[str], *, n_queries: int, max_new_tokens: int, seed: int) -> list[list[str]]:
        self.asked.set()
        assert self.go.wait(300)
        return super().generate(passages, n_queries=n_queries, max_new_tokens=max_new_tokens, seed=seed)


@pytest.fixture
def client(node: EmbeddedNode) -> OpenSearch:
    return connect(ClusterSettings(url=node.url))


@pytest.fixture
def enriched_index(client: OpenSearch, fresh_index: str, tmp_path: Path) -> str:
    old_application(client, fresh_index, N_DOCUMENTS)
    backfill(client, fresh_index, tmp_path / "backfill")
    return fresh_index


def followers(
    client: OpenSearch, index: str, folder: Path, models: Models, stop: StopRequest | None = None
) -> FollowerPair:
    profile = followed_profile(indices.look(client, index), None, models)
    return FollowerPair(Job(index, profile, models, client, FAST, folder), stop or StopRequest())


def caught_up(client: OpenSearch, index: str, folder: Path, models: Models) -> list[FollowStatus]:
    with followers(client, index, folder, models) as following:
        return following.follow(once=True)


def neural(client: OpenSearch, index: str, doc_id: str) -> dict[str, Any]:
    return dict(source(client, index, doc_id).get("_neural", {}))


def has_all(client: OpenSearch, index: str, doc_id: str) -> bool:
    return is_enriched(source(client, index, doc_id))


def test_vectors_do_not_wait_for_predicted_queries(client: OpenSearch, enriched_index: str, tmp_path: Path) -> None:
    generator, stop = HeldGenerator(), StopRequest()
    models = replace(toy_models(), generator=generator)
    with followers(client, enriched_index, tmp_path / "state", models, stop) as following:
        thread = threading.Thread(target=following.follow)
        thread.start()
        try:
            client.index(index=enriched_index, id="first", body={"title": "first", "text": "holds the generator"})
            assert generator.asked.wait(300)
            client.index(index=enriched_index, id="new", body={"title": "new", "text": "came while it was held"})
            client.update(index=enriched_index, id="d1", body={"doc": {"text": "another text"}})
            eventually(lambda: neural(client, enriched_index, "new").get("embedding") is not None)
            eventually(lambda: neural(client, enriched_index, "d1")["predicted_queries"] is None)
            assert not neural(client, enriched_index, "new").get("predicted_queries")
            vectors, queries = following.status()
            assert vectors.lag_s < queries.lag_s
            generator.go.set()
            for doc_id in ("first", "new", "d1"):
                eventually(partial(has_all, client, enriched_index, doc_id))
                assert neural(client, enriched_index, doc_id)["embedding"]
        finally:
            generator.go.set()
            stop.ask(15)
            thread.join(300)
    assert not thread.is_alive()


def test_what_both_made_is_what_one_makes_at_once(client: OpenSearch, enriched_index: str, tmp_path: Path) -> None:
    models = toy_models()
    first = caught_up(client, enriched_index, tmp_path / "state", models)
    assert [(each.fields, each.ledger.written) for each in first] == [("vectors", 0), ("predicted_queries", 0)]
    client.index(index=enriched_index, id="new", body={"title": "new", "text": "came later"})
    client.index(index=enriched_index, id="empty", body={"title": "", "text": ""})
    client.update(index=enriched_index, id="d2", body={"doc": {"text": "another text"}})
    second = caught_up(client, enriched_index, tmp_path / "state", models)
    assert [each.ledger.written for each in second] == [3, 3]
    client.index(index=enriched_index, id="new too", body={"title": "new", "text": "came later"})
    at_once = all_at_once(client, enriched_index, tmp_path / "at once").ledger
    assert (at_once.written, at_once.unchanged) == (1, N_DOCUMENTS + 2)
    assert neural(client, enriched_index, "new") == neural(client, enriched_index, "new too")
    third = caught_up(client, enriched_index, tmp_path / "state", models)
    assert [each.ledger.written for each in third] == [0, 0]


def test_after_a_restart_only_what_is_missing_is_made(client: OpenSearch, enriched_index: str, tmp_path: Path) -> None:
    encoder = CountingEncoder()
    state = tmp_path / "state"
    client.index(index=enriched_index, id="new", body={"title": "new", "text": "written while nobody followed"})
    stop = StopRequest()
    generator = HeldGenerator()
    with followers(
        client, enriched_index, state, replace(toy_models(), encoder=encoder, generator=generator), stop
    ) as (following):
        thread = threading.Thread(target=following.follow)
        thread.start()
        assert generator.asked.wait(300)
        stop.ask(15)
        generator.go.set()
        thread.join(300)
    embedded = encoder.texts
    assert embedded >= 1
    ended = caught_up(client, enriched_index, state, replace(toy_models(), encoder=encoder))
    assert is_enriched(source(client, enriched_index, "new"))
    assert encoder.texts == embedded
    assert ended[0].ledger.written == 0


def test_followers_end_together_and_hold_their_folders(client: OpenSearch, enriched_index: str, tmp_path: Path) -> None:
    with followers(client, enriched_index, tmp_path / "state", toy_models()) as following:
        with pytest.raises(CheckpointUnusable, match="in use"):
            caught_up(client, enriched_index, tmp_path / "state", toy_models())
        undo(client, enriched_index)
        with pytest.raises(IndexUnsuitable, match="was dropped or undone"):
            following.follow()


def test_nothing_is_predicted_while_other_work_goes_first() -> None:
    priority, echo = Priority(), EchoGenerator()
    generator = WaitingGenerator(echo, priority)
    predicted: list[list[str]] = []

    def predict() -> None:
        predicted.extend(generator.generate(["wing"], n_queries=1, max_new_tokens=8, seed=0))

    with priority:
        thread = threading.Thread(target=predict)
        thread.start()
        thread.join(0.2)
        assert thread.is_alive()
        assert echo.passages == 0
    thread.join(60)
    assert predicted == [["what is wing"]]
    assert generator.generate(["lift"], n_queries=1, max_new_tokens=8, seed=0) == [["what is lift"]]
