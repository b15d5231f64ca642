"""Calibrated indices on a real node: a score means the same however it was made, and closest documents are marked."""

import json
import math
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from bridge.node.node import EmbeddedNode
from bridge.profile import Calibration, Measurement
from tests.proxy_stack import PREFIX, ProxyStack
from tests.servers import client, unused_index_name

pytestmark = [pytest.mark.slow, pytest.mark.node]

TITLES = ["wing flow", "plate heat", "red shoe", "blue dress", "shock layer", "file read", "wing heat", "red dress"]
DOCUMENTS: dict[str, tuple[dict[str, Any], list[str]]] = {
    f"d{n}-{copy}": ({"title": title, "body": " ".join([title] * (copy + 1)), "kind": kind}, [])
    for n, title in enumerate(TITLES)
    for copy, kind in enumerate(["paper", "paper", "ad"])
}
WINDOW = 12
SLOPE, MIDDLE = 12.0, 0.75
NOWHERE = {"match": {"title": "cat dog"}}
"""Words that the encoder knows and that are in no document."""


@pytest.fixture(scope="module", params=["in place", "beside"])
def index(node: EmbeddedNode, stack: ProxyStack, request: pytest.FixtureRequest) -> Iterator[str]:
    name = unused_index_name()
    fill = stack.fill_beside if request.param == "beside" else stack.fill
    measured = Measurement("by hand", 40, "AUC", "2026-01-02T03:04:05Z")
    with client(node.url) as direct:
        fill(
            direct,
            name,
            DOCUMENTS,
            properties={"kind": {"type": "keyword"}},
            settings={"number_of_shards": 1, "number_of_replicas": 0},
            window=WINDOW,
            calibration=Calibration(SLOPE, MIDDLE, stack.encoder.identity, 1, 0.9, 0.8, 1.0, 148, measured),
        )
        yield name
        direct.indices.delete(index=f"{name},{PREFIX}{name}", params={"ignore_unavailable": "true"})


def ask(stack: ProxyStack, index: str, body: dict[str, Any], control: str) -> tuple[str, dict[str, Any]]:
    answered = requests.post(f"{stack.url}/{index}/_search", json=body, headers={"x-bridge": control}, timeout=60)
    answer: dict[str, Any] = answered.json()
    return answered.headers["X-Bridge"], answer


def ids(answer: dict[str, Any]) -> list[str]:
    return [hit["_id"] for hit in answer["hits"]["hits"]]


def by_vectors(answer: dict[str, Any]) -> dict[str, float]:
    """Each document's score of the vector leg."""
    legs = {hit["_id"]: hit["_bridge"]["legs"] for hit in answer["hits"]["hits"]}
    return {doc_id: of["vector"]["score"] for doc_id, of in legs.items() if "vector" in of}


def test_a_score_means_the_same_whether_vectors_are_searched_or_all_compared(stack: ProxyStack, index: str) -> None:
    words = {"match": {"title": "wing flow"}}
    few = {"bool": {"must": [words], "filter": [{"term": {"kind": "ad"}}]}}
    _, searched = ask(stack, index, {"query": words, "size": 50}, "vector, explain")
    _, compared = ask(stack, index, {"query": few, "size": 50}, "vector, explain")
    both = by_vectors(searched).keys() & by_vectors(compared).keys()
    assert both
    for doc_id in both:
        assert by_vectors(compared)[doc_id] == pytest.approx(by_vectors(searched)[doc_id], abs=0.01)
    assert max(by_vectors(searched).values()) == pytest.approx(1.0, abs=0.02)


def test_confidence_is_the_curve_at_the_nearest_documents_score(stack: ProxyStack, index: str) -> None:
    for words in ("wing flow", "red dress", "heat of a file"):
        mark, answer = ask(stack, index, {"query": {"match": {"title": words}}}, "hybrid, explain")
        best = max(by_vectors(answer).values())
        expected = 1 / (1 + math.exp(-SLOPE * (best - MIDDLE)))
        assert answer["_bridge"]["confidence"] == pytest.approx(expected, abs=1e-3)
        assert f"; confidence={answer['_bridge']['confidence']:.2f}; " in mark


@pytest.mark.parametrize("stage", ["vector", "hybrid", "rerank"])
def test_a_cutoff_leaves_out_distant_documents_and_no_other(stack: ProxyStack, index: str, stage: str) -> None:
    body = {"query": {"match": {"title": "wing flow"}}, "size": 50}
    _, every = ask(stack, index, body, f"{stage}, explain")
    probability = {doc_id: 1 / (1 + math.exp(-SLOPE * (of - MIDDLE))) for doc_id, of in by_vectors(every).items()}
    cutoff = round(sum(sorted(probability.values())[:2]) / 2 + 0.05, 2)
    _, matching = ask(stack, index, body, "off")

    _, near = ask(stack, index, body, f"{stage}, explain, cutoff={cutoff}")

    left_out = set(ids(every)) - set(ids(near))
    assert left_out
    assert left_out == {
        doc_id for doc_id in ids(every) if doc_id not in ids(matching) and probability.get(doc_id, 0) < cutoff
    }
    assert near["hits"]["total"] == matching["hits"]["total"]
    assert set(ids(matching)) <= set(ids(near))


def test_a_search_that_matches_nothing_gets_marked_documents_on_stable_pages(stack: ProxyStack, index: str) -> None:
    body = {"query": {"bool": {"must": [NOWHERE], "filter": [{"term": {"kind": "paper"}}]}}, "size": WINDOW}
    _, nothing = ask(stack, index, body, "rerank, cutoff=1")
    mark, whole = ask(stack, index, body, "rerank, cutoff=1, fallback")
    starts = range(0, 15, 3)
    pages = [ask(stack, index, {**body, "from": n, "size": 3}, "rerank, cutoff=1, fallback") for n in starts]
    assert ids(nothing) == []
    assert mark.startswith("hybrid+rerank; fallback=closest; confidence=")
    assert len(ids(whole)) == WINDOW
    assert [doc_id for _, page in pages for doc_id in ids(page)] == ids(whole)
    assert all(hit["_bridge"] == {"fallback": "closest"} for hit in whole["hits"]["hits"])
    assert {hit["_source"]["kind"] for hit in whole["hits"]["hits"]} == {"paper"}
    assert whole["hits"]["total"] == nothing["hits"]["total"] == {"value": 0, "relation": "eq"}


def test_searches_in_one_request_are_marked_each_by_itself(stack: ProxyStack, index: str) -> None:
    lines = [{"index": index}, {"query": NOWHERE}, {"index": index}, {"query": {"match": {"title": "wing"}}}]
    body = "".join(json.dumps(line) + "\n" for line in lines)
    headers = {"x-bridge": "hybrid, fallback", "Content-Type": "application/x-ndjson"}
    found, matching = requests.post(f"{stack.url}/_msearch", data=body, headers=headers, timeout=60).json()["responses"]
    assert ids(found)
    assert all(hit["_bridge"] == {"fallback": "closest"} for hit in found["hits"]["hits"])
    assert not any("_bridge" in hit for hit in matching["hits"]["hits"])
