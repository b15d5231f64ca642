"""Products of five variants each, on a real node: groups, their heads and inner hits are the cluster's own."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from bridge.node.node import EmbeddedNode
from bridge.profile import RerankSettings
from tests.proxy_stack import PREFIX, ProxyStack
from tests.servers import client, unused_index_name

pytestmark = [pytest.mark.slow, pytest.mark.node]

PRODUCTS = ["wing flow", "plate heat", "red shoe", "blue dress", "shock layer", "file read", "wing heat", "red dress"]
FINISHES = ["pressure", "layer", "shoe", "flow", "read"]


def _documents() -> dict[str, tuple[dict[str, Any], list[str]]]:
    made: dict[str, tuple[dict[str, Any], list[str]]] = {}
    for n, product in enumerate(PRODUCTS * 3):
        for variant, finish in enumerate(FINISHES):
            document = {
                "title": f"{product} {finish}",
                "body": " ".join([finish] * (variant + 1) + [product] * (n % 3)),
                "n": 5 * n + variant,
                "kind": ["paper", "ad"][variant % 2],
            }
            # The last products have no group of their own.
            groups = {"product": f"p{n}", "number": n, "ratio": n / 4} if n < 20 else {}
            made[f"d{n}-{variant}"] = document | groups, [f"{FINISHES[(n + variant) % 5]} {product}"]
    return made


DOCUMENTS = _documents()
PROPERTIES = {
    "product": {"type": "keyword"},
    "number": {"type": "long"},
    "ratio": {"type": "double"},
    "kind": {"type": "keyword"},
    "n": {"type": "integer"},
}
WING = {"multi_match": {"query": "wing flow", "fields": ["title", "body"]}}
PAPER = {"term": {"kind": "paper"}}
ALL = {"name": "all", "size": 10}
BODIES: dict[str, dict[str, Any]] = {
    "keyword": {"query": WING, "collapse": {"field": "product", "inner_hits": ALL}},
    "whole number": {"query": WING, "collapse": {"field": "number", "inner_hits": ALL}},
    "decimal": {"query": WING, "collapse": {"field": "ratio", "inner_hits": ALL}},
    "several, sorted": {
        "query": WING,
        "collapse": {
            "field": "product",
            "inner_hits": [
                {"name": "newest", "size": 2, "sort": [{"n": "desc"}], "_source": ["title"]},
                {"name": "second", "from": 1, "size": 2, "version": True, "highlight": {"fields": {"title": {}}}},
            ],
            "max_concurrent_group_searches": 3,
        },
    },
    "second level": {
        "query": WING,
        "collapse": {"field": "product", "inner_hits": {**ALL, "collapse": {"field": "kind"}}},
    },
    "filter": {
        "query": {"bool": {"must": [WING], "filter": [PAPER], "must_not": [{"term": {"number": 3}}]}},
        "collapse": {"field": "product", "inner_hits": ALL},
    },
    "post_filter": {"query": WING, "post_filter": PAPER, "collapse": {"field": "product", "inner_hits": ALL}},
    "min_score": {"query": WING, "min_score": 1.0, "collapse": {"field": "product", "inner_hits": ALL}},
}
STAGES = ["expansion", "vector", "hybrid", "rerank", "cascade"]


@pytest.fixture(scope="module", params=["in place", "beside", "two shards", "a small window"])
def index(node: EmbeddedNode, stack: ProxyStack, request: pytest.FixtureRequest) -> Iterator[str]:
    name = unused_index_name()
    settings = {"number_of_shards": 2 if request.param == "two shards" else 1, "number_of_replicas": 0}
    window = 15 if request.param == "a small window" else 150
    fill = stack.fill_beside if request.param == "beside" else stack.fill
    with client(node.url) as direct:
        fill(
            direct,
            name,
            DOCUMENTS,
            properties=PROPERTIES,
            settings=settings,
            window=window,
            rerank=RerankSettings(depth=12),
        )
        yield name
        direct.indices.delete(index=f"{name},{PREFIX}{name}", params={"ignore_unavailable": "true"})


def ask(stack: ProxyStack, target: str, body: dict[str, Any], control: str = "hybrid") -> tuple[str, dict[str, Any]]:
    answered = requests.post(f"{stack.url}/{target}", json=body, headers={"x-bridge": control}, timeout=60)
    answer: dict[str, Any] = answered.json()
    return answered.headers["X-Bridge"], answer


def pages_of(stack: ProxyStack, index: str, body: dict[str, Any], stage: str, size: int = 4) -> list[dict[str, Any]]:
    hits: list[dict[str, Any]] = []
    for start in range(0, 28, size):
        mark, answer = ask(stack, f"{index}/_search", {**body, "from": start, "size": size}, stage)
        assert "pass" not in mark, mark
        assert "degraded" not in mark, mark
        hits += answer["hits"]["hits"]
    return hits


def group_of(hit: dict[str, Any], field: str) -> Any:
    """None for the group of those without a value, however this version writes it."""
    return next(iter(hit.get("fields", {}).get(field) or [None]), None)


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("name", BODIES)
def test_groups_and_inner_hits_are_the_clusters_own(stack: ProxyStack, index: str, stage: str, name: str) -> None:
    body, field = BODIES[name], BODIES[name]["collapse"]["field"]
    _, own = ask(stack, f"{index}/_search", {**body, "size": 50}, "lexical")
    of_group = {group_of(hit, field): hit for hit in own["hits"]["hits"]}

    hits = pages_of(stack, index, body, stage)

    found = [group_of(hit, field) for hit in hits]
    assert len(found) == len(set(found))
    assert of_group.keys() <= set(found)
    for hit in hits:
        group = group_of(hit, field)
        assert group == DOCUMENTS[hit["_id"]][0].get(field)
        if group in of_group:
            assert hit["inner_hits"] == of_group[group]["inner_hits"]
            assert hit.get("fields") == of_group[group].get("fields")
        else:
            shown = [each["_id"] for inner in hit["inner_hits"].values() for each in inner["hits"]["hits"]]
            assert shown
            assert {DOCUMENTS[doc_id][0].get(field) for doc_id in shown} == {group}
            if name in ("filter", "post_filter"):
                assert {DOCUMENTS[doc_id][0]["kind"] for doc_id in shown} == {"paper"}


@pytest.mark.parametrize("stage", STAGES)
def test_each_head_is_the_best_of_its_group(stack: ProxyStack, index: str, stage: str) -> None:
    """As many documents are ranked as the index has, if the window is not small."""
    body = {"query": WING, "size": 150}
    mark, plain = ask(stack, f"{index}/_search", body, f"{stage}, explain")
    _, collapsed = ask(stack, f"{index}/_search", {**body, "collapse": {"field": "product"}}, stage)

    ranking = [hit["_id"] for hit in plain["hits"]["hits"] if not hit["_bridge"].get("tail")]
    heads: dict[Any, str] = {}
    for doc_id in ranking:
        heads.setdefault(DOCUMENTS[doc_id][0].get("product"), doc_id)

    assert mark.startswith(("hybrid", stage))
    found = [hit["_id"] for hit in collapsed["hits"]["hits"]]
    # A small window cuts documents before others of their groups are met.
    assert found[: len(heads)] == list(heads.values())[: len(found)]


def test_totals_and_aggregations_count_documents_as_the_clusters_do(stack: ProxyStack, index: str) -> None:
    body = {**BODIES["keyword"], "aggs": {"kinds": {"terms": {"field": "kind"}}}, "track_total_hits": True}
    _, own = ask(stack, f"{index}/_search", body, "lexical")

    _, upgraded = ask(stack, f"{index}/_search", body)

    assert upgraded["hits"]["total"] == own["hits"]["total"]
    assert upgraded["aggregations"] == own["aggregations"]


def test_several_searches_and_parts_of_answers_are_collapsed_alike(stack: ProxyStack, index: str) -> None:
    _, alone = ask(stack, f"{index}/_search", BODIES["keyword"])
    _, part = ask(
        stack, f"{index}/_search?filter_path=hits.hits._id,hits.hits.inner_hits.all.hits.total", BODIES["keyword"]
    )
    template = {"source": BODIES["keyword"], "params": {}}
    _, templated = ask(stack, f"{index}/_search/template", template)
    lines = [{}, BODIES["keyword"], {}, {"query": WING}]
    several = requests.post(
        f"{stack.url}/{index}/_msearch",
        data="".join(f"{json.dumps(line)}\n" for line in lines),
        headers={"Content-Type": "application/x-ndjson", "x-bridge": "hybrid"},
        timeout=60,
    )

    assert several.headers["X-Bridge"].startswith("upgraded=2/2")
    assert several.json()["responses"][0]["hits"]["hits"] == alone["hits"]["hits"]
    assert templated["hits"]["hits"] == alone["hits"]["hits"]
    totals = [{"hits": {"total": hit["inner_hits"]["all"]["hits"]["total"]}} for hit in alone["hits"]["hits"]]
    assert [hit["inner_hits"]["all"] for hit in part["hits"]["hits"]] == totals


def test_totals_of_inner_hits_are_numbers_if_the_application_wants_them_so(stack: ProxyStack, index: str) -> None:
    _, answer = ask(stack, f"{index}/_search?rest_total_hits_as_int=true", {**BODIES["keyword"], "size": 30}, "vector")

    totals = [hit["inner_hits"]["all"]["hits"]["total"] for hit in answer["hits"]["hits"]]
    assert totals
    assert all(isinstance(total, int) for total in totals)


@pytest.mark.parametrize("field", ["title", "no_such_field"])
def test_what_the_cluster_does_not_collapse_by_is_its_own_error(
    node: EmbeddedNode, stack: ProxyStack, index: str, field: str
) -> None:
    body = {"query": WING, "collapse": {"field": field}}

    through = requests.post(f"{stack.url}/{index}/_search", json=body, timeout=60)
    direct = requests.post(f"{node.url}/{index}/_search", json=body, timeout=60)

    assert (through.status_code, through.json()) == (direct.status_code, direct.json())
    assert through.status_code >= 400
