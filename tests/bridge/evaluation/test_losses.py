"""Queries won and lost between two stages, and the worst of them as lines to read."""

import json
from collections.abc import Iterator, Mapping

import numpy as np
import pytest
from opensearchpy import OpenSearch

from bridge.cluster.connection import connect
from bridge.evaluation.losses import document_titles, marked, won_and_lost, worst_losses
from bridge.evaluation.measures import evaluate
from bridge.evaluation.stages import StageResult, StageRun
from bridge.settings import ClusterSettings
from tests.fake_bulk import FakeCluster, Reply, fake_cluster

QRELS = {f"q{n}": {"right": 1} for n in range(5)}


def result(ranks: Mapping[str, int]) -> StageResult:
    """A stage that ranks the right document so (first is 1) among wrong ones."""
    wrong = ["w1", "w2", "w3", "w4", "w5"]
    rankings = {query: [*wrong[: rank - 1], "right", *wrong[rank - 1 :]] for query, rank in ranks.items()}
    run = StageRun("hybrid", rankings, np.ones(len(rankings)))
    return StageResult("hybrid", run, evaluate(QRELS, rankings), None)


BEFORE = result({"q0": 1, "q1": 2, "q2": 1, "q3": 3, "q4": 1})
AFTER = result({"q0": 2, "q1": 1, "q2": 4, "q3": 3, "q4": 2})


def test_queries_are_counted_by_the_sign_of_their_difference() -> None:
    assert won_and_lost(BEFORE, AFTER, "RR@10") == (1, 3)
    assert won_and_lost(AFTER, BEFORE, "RR@10") == (3, 1)


def test_the_worst_losses_come_first_and_equal_ones_in_the_order_of_the_queries() -> None:
    losses = worst_losses(BEFORE, AFTER, "RR@10")
    assert [(loss.query_id, loss.before, loss.after) for loss in losses] == [
        ("q2", 1.0, 0.25),
        ("q0", 1.0, 0.5),
        ("q4", 1.0, 0.5),
    ]
    assert (losses[0].ranking_before, losses[0].ranking_after) == (["right", "w1", "w2"], ["w1", "w2", "w3"])
    assert [loss.query_id for loss in worst_losses(BEFORE, AFTER, "RR@10", most=2)] == ["q2", "q0"]


def test_relevant_hits_are_marked() -> None:
    assert marked(["d1", "d2", "d3"], {"d1": 2, "d2": 0}, {"d1": "Shoes"}) == "+ d1 Shoes\n· d2\n· d3"


@pytest.fixture
def cluster() -> Iterator[FakeCluster]:
    with fake_cluster() as running:
        yield running


@pytest.fixture
def client(cluster: FakeCluster) -> Iterator[OpenSearch]:
    with connect(ClusterSettings(url=cluster.url)) as connected:
        yield connected


def test_titles_are_the_first_words_of_the_documents_that_can_be_read(cluster: FakeCluster, client: OpenSearch) -> None:
    documents = [
        {"_id": "d1", "found": True, "_source": {"title": "Red\n shoe", "text": "of leather"}},
        {"_id": "d2", "found": True, "_source": {"text": "x" * 60}},
        {"_id": "gone", "found": False},
        {"_id": "routed", "error": {"type": "routing_missing_exception"}},
    ]
    cluster.on_request = lambda _: Reply(body=json.dumps({"docs": documents}).encode())
    titles = document_titles(client, "products", ["d1", "d2", "gone", "routed"], ["title", "text"])
    assert titles == {"d1": "Red shoe. of leather", "d2": "x" * 50 + "…"}
    [request] = cluster.requests
    assert json.loads(request.body) == {"ids": ["d1", "d2", "gone", "routed"]}


def test_no_documents_need_no_request(cluster: FakeCluster, client: OpenSearch) -> None:
    assert document_titles(client, "products", [], ["title"]) == {}
    assert cluster.requests == []
