"""A shop's rules on a real node: pins stay at their places, and boosts order what the words do not tell apart."""

import random
from collections.abc import Iterator
from itertools import combinations
from typing import Any

import pytest
import requests

from bridge.node.node import EmbeddedNode
from bridge.profile import RerankSettings
from tests.proxy_stack import PREFIX, ProxyStack
from tests.servers import client, unused_index_name

pytestmark = [pytest.mark.slow, pytest.mark.node]

TITLES = ["wing flow", "plate heat", "red shoe", "blue dress", "shock layer", "wing heat"]
STAGES = ["vector", "hybrid", "smoothing", "rerank", "cascade"]


def _documents() -> dict[str, tuple[dict[str, Any], list[str]]]:
    """Of each title eight documents that differ in nothing that is read."""
    chance = random.Random(3)
    made: dict[str, tuple[dict[str, Any], list[str]]] = {}
    for n, title in enumerate(TITLES):
        for copy in range(8):
            document = {
                "title": title,
                "body": f"{title} and a {TITLES[(n + 1) % 6]}",
                "sales": chance.randrange(1, 500),
                "day": f"2020-01-{chance.randrange(1, 29):02}",
                "brand": f"b{copy % 3}",
                "fame": chance.randrange(1, 90),
            }
            made[f"d{n}-{copy}"] = document, [TITLES[(n + 2) % 6]] if n % 2 else []
    return made


DOCUMENTS = _documents()
PROPERTIES = {
    "sales": {"type": "integer"},
    "day": {"type": "date"},
    "brand": {"type": "keyword"},
    "fame": {"type": "rank_feature"},
}
WORDS = {"multi_match": {"query": "wing flow", "fields": ["title", "body"]}}


def scored(**functions: Any) -> dict[str, Any]:
    return {"function_score": {"query": WORDS, **functions}}


RULES: dict[str, dict[str, Any]] = {
    "sales": scored(field_value_factor={"field": "sales", "modifier": "log1p"}),
    "sales, added": scored(field_value_factor={"field": "sales", "modifier": "sqrt"}, boost_mode="sum"),
    "raw sales": scored(field_value_factor={"field": "sales"}),
    "decay": scored(gauss={"day": {"origin": "2020-01-29", "scale": "10d", "decay": 0.5}}),
    "a brand's weight": scored(functions=[{"filter": {"term": {"brand": "b1"}}, "weight": 1.4}]),
    "a boosted brand": {"bool": {"must": WORDS, "should": {"term": {"brand": {"value": "b1", "boost": 2}}}}},
    "fame": {"bool": {"must": [WORDS], "should": [{"rank_feature": {"field": "fame", "boost": 3}}]}},
    "demoted": {"boosting": {"positive": WORDS, "negative": {"term": {"brand": "b2"}}, "negative_boost": 0.5}},
    "both": scored(
        functions=[
            {"exp": {"day": {"origin": "2020-01-29", "scale": "20d"}}},
            {"field_value_factor": {"field": "sales", "modifier": "log1p"}},
        ],
        score_mode="sum",
    ),
}


@pytest.fixture(scope="module", params=["in place", "beside"])
def index(node: EmbeddedNode, stack: ProxyStack, request: pytest.FixtureRequest) -> Iterator[str]:
    name = unused_index_name()
    fill = stack.fill_beside if request.param == "beside" else stack.fill
    settings = {"number_of_shards": 1, "number_of_replicas": 0}
    with client(node.url) as direct:
        fill(
            direct,
            name,
            DOCUMENTS,
            properties=PROPERTIES,
            settings=settings,
            window=40,
            rerank=RerankSettings(depth=16),
        )
        yield name
        direct.indices.delete(index=f"{name},{PREFIX}{name}", params={"ignore_unavailable": "true"})


def ask(stack: ProxyStack, index: str, body: dict[str, Any], stage: str) -> list[dict[str, Any]]:
    answered = requests.post(f"{stack.url}/{index}/_search", json=body, headers={"x-bridge": stage}, timeout=60)
    assert answered.status_code == 200, answered.text
    mark = answered.headers["X-Bridge"]
    assert "degraded" not in mark, mark
    assert stage.startswith("lexical") or "pass" not in mark, mark
    hits: list[dict[str, Any]] = answered.json()["hits"]["hits"]
    return hits


def ids(hits: list[dict[str, Any]]) -> list[str]:
    return [hit["_id"] for hit in hits]


def pinned_body(seed: int) -> tuple[dict[str, Any], list[str]]:
    """A search with some documents above all others, written in one of the ways in which shops do, and these."""
    chance = random.Random(seed)
    pins = chance.sample(sorted(DOCUMENTS), chance.randrange(1, 6))
    base = 10 ** chance.randrange(2, 7)
    each = [
        {"constant_score": {"filter": {"ids": {"values": [pin]}}, "boost": base * (len(pins) - n)}}
        for n, pin in enumerate(pins)
    ]
    together = {"constant_score": {"filter": {"terms": {"_id": pins}}, "boost": base}}
    typed = chance.choice(TITLES)
    words = {"multi_match": {**WORDS["multi_match"], "query": typed}}
    ways: list[dict[str, Any]] = [
        {"bool": {"should": [words, *each]}},
        {"bool": {"must": words, "should": each}},
        {
            "bool": {
                "must": [words],
                "should": [together, {"match_phrase": {"title": typed}}],
            }
        },
        {"function_score": {"query": words, "functions": [{"filter": {"ids": {"values": pins}}, "weight": base}]}},
        {
            "function_score": {
                "query": {"bool": {"must": words, "filter": [{"range": {"sales": {"gte": 0}}}]}},
                "functions": [{"filter": {"terms": {"_id": pins}}, "weight": base}],
                "boost_mode": "sum",
            }
        },
        {
            "function_score": {
                "query": {"bool": {"should": [words, together], "minimum_should_match": 1}},
                "field_value_factor": {"field": "sales", "modifier": "log1p"},
            }
        },
    ]
    return {"query": ways[seed % len(ways)]}, pins


@pytest.mark.parametrize("stage", STAGES)
def test_a_pin_never_moves(stack: ProxyStack, index: str, stage: str) -> None:
    for seed in range(10):
        body, pins = pinned_body(seed)
        own = ids(ask(stack, index, {**body, "size": 48}, "lexical"))
        first = [doc_id for doc_id in own if doc_id in pins]
        assert own[: len(first)] == first, body

        pages = [ask(stack, index, {**body, "from": start, "size": 5}, stage) for start in range(0, 20, 5)]

        found = [hit["_id"] for page in pages for hit in page]
        assert found[: len(first)] == first, body
        assert len(found) == len(set(found))


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("name", RULES)
def test_a_boost_orders_what_is_equal_otherwise(stack: ProxyStack, index: str, stage: str, name: str) -> None:
    body = {"query": RULES[name], "size": 40}
    own = {hit["_id"]: hit["_score"] for hit in ask(stack, index, {**body, "size": 48}, "lexical")}

    found = ids(ask(stack, index, body, stage))

    agreeing = [
        own[first] > own[second]
        for first, second in combinations([doc_id for doc_id in found if doc_id in own], 2)
        if first.split("-")[0] == second.split("-")[0] and own[first] != own[second]
    ]
    assert len(agreeing) > 20
    # Kendall's τ of the pairs that the application's own query has an order for.
    assert 2 * sum(agreeing) / len(agreeing) - 1 >= 0.9


def test_lifts_and_pins_are_explained(stack: ProxyStack, index: str) -> None:
    query = {
        "bool": {"must": WORDS, "should": {"constant_score": {"filter": {"ids": {"values": ["d0-3"]}}, "boost": 1e4}}}
    }

    hits = ask(stack, index, {"query": query}, "rerank, explain")

    assert (hits[0]["_id"], hits[0]["_bridge"]["pinned"]) == ("d0-3", True)
    assert all("lift" in hit["_bridge"] and "pinned" not in hit["_bridge"] for hit in hits[1:])


def test_groups_may_be_boosted_and_pinned(stack: ProxyStack, index: str) -> None:
    """One of each brand: the pinned one of its brand, and the best of the others."""
    pin = {"constant_score": {"filter": {"ids": {"values": ["d2-4"]}}, "boost": 1e4}}
    body = {"query": {"bool": {"should": [WORDS, pin]}}, "collapse": {"field": "brand"}}

    hits = ask(stack, index, body, "rerank")

    assert hits[0]["_id"] == "d2-4"
    assert sorted(hit["fields"]["brand"][0] for hit in hits) == ["b0", "b1", "b2"]
