"""The same documents, enriched in place and beside: the proxy ranks them alike, whatever a search demands of them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from opensearchpy import OpenSearch

from bridge.cluster.connection import connect
from bridge.node.node import EmbeddedNode
from bridge.profile import PassageSettings, RerankSettings
from bridge.settings import ClusterSettings, IngestSettings
from ingest.job import Job
from ingest.runs.beside import run_beside
from ingest.stages.models import Models
from tests.ingest.toys import word_spans
from tests.proxy_stack import NESTED, PREFIX, ProxyStack, proxy_stack
from tests.servers import client, unused_index_name

pytestmark = [pytest.mark.slow, pytest.mark.node]

WORDS = ["wing", "flow", "pressure", "plate", "heat", "shock", "layer", "shoe", "red", "blue", "dress", "file", "read"]
KINDS = ["paper", "note", "ad"]


def _document(i: int) -> tuple[dict[str, Any], list[str]]:
    title = f"{WORDS[i % 13]} {WORDS[i // 3 % 13]}"
    body = " ".join(WORDS[(i * k + k) % 13] for k in range(1, 4 + i % 5))
    predicted = [f"{WORDS[(i + 5) % 13]} {WORDS[(i * 3) % 13]}"] if i % 3 else []
    return {"title": title, "body": body, "kind": KINDS[i % 3], "n": i, "rare": i % 37 == 0}, predicted


DOCUMENTS = {f"d{i}": _document(i) for i in range(240)}
PROPERTIES = {"kind": {"type": "keyword"}, "n": {"type": "integer"}, "rare": {"type": "boolean"}}
STAGES = ["expansion", "vector", "hybrid", "cascade", "rerank"]

WING = {"multi_match": {"query": "wing flow", "fields": ["title", "body"]}}
BODIES: dict[str, dict[str, Any]] = {
    "plain": {"query": WING},
    "one field": {"query": {"match": {"title": "blue dress"}}},
    "filter": {"query": {"bool": {"must": [WING], "filter": [{"term": {"kind": "paper"}}]}}},
    "rare": {"query": {"bool": {"must": [WING], "filter": [{"term": {"rare": True}}]}}},
    "none": {"query": {"bool": {"must": [WING], "filter": [{"term": {"kind": "void"}}]}}},
    "must_not": {"query": {"bool": {"must": WING, "must_not": {"terms": {"kind": ["ad", "note"]}}}}},
    "scoring condition": {"query": {"bool": {"must": [WING, {"range": {"n": {"lte": 200, "boost": 3}}}]}}},
    "post_filter": {"query": WING, "post_filter": {"term": {"kind": "paper"}}},
    "function_score": {
        "query": {
            "function_score": {
                "query": {"bool": {"must": [WING]}},
                "functions": [{"field_value_factor": {"field": "n", "modifier": "ln2p"}}],
            }
        }
    },
    "should": {
        "query": {
            "bool": {
                "should": [{"match": {"title": "wing flow"}}, {"match": {"body": "wing flow"}}],
                "minimum_should_match": 1,
                "filter": {"range": {"n": {"gte": 20}}},
            }
        }
    },
    "dis_max": {"query": {"dis_max": {"queries": [{"match": {"title": "heat"}}, {"match": {"body": "heat"}}]}}},
    "min_score": {"query": WING, "min_score": 0.5},
}


@pytest.fixture(scope="module")
def stack(node: EmbeddedNode, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProxyStack]:
    folder = tmp_path_factory.mktemp("models")
    with proxy_stack(ClusterSettings(url=node.url), folder, budget_ms=60_000, profile_ttl_s=0) as running:
        yield running


@pytest.fixture(scope="module", params=["single", "nested", "two shards", "scored apart"])
def ways(node: EmbeddedNode, stack: ProxyStack, request: pytest.FixtureRequest) -> Iterator[tuple[str, str]]:
    """An index that is enriched in place, and one that has a companion."""
    names = unused_index_name(), unused_index_name()
    more: dict[str, Any] = {
        "passages": NESTED if request.param == "nested" else PassageSettings(),
        "rerank": RerankSettings(depth=20),
        "window": 30,
    }
    # Another analyser than that of the predicted queries: then they are scored by themselves.
    plain = {"body": {"type": "text", "analyzer": "standard"}}
    properties = PROPERTIES | (plain if request.param == "scored apart" else {})
    settings = {"number_of_shards": 2 if request.param == "two shards" else 1, "number_of_replicas": 0}
    with client(node.url) as direct:
        for fill, name in zip((stack.fill, stack.fill_beside), names, strict=True):
            fill(direct, name, DOCUMENTS, properties=properties, settings=settings, **more)
        yield names
        direct.indices.delete(index=f"{names[0]},{names[1]},{PREFIX}{names[1]}")


def search(stack: ProxyStack, index: str, body: dict[str, Any], control: str) -> tuple[str, dict[str, Any]]:
    answered = requests.post(f"{stack.url}/{index}/_search", json=body, headers={"x-bridge": control}, timeout=60)
    answer: dict[str, Any] = answered.json()
    return answered.headers["X-Bridge"].split("; took")[0], answer


def ranked(answer: dict[str, Any]) -> dict[str, float]:
    return {hit["_id"]: hit["_score"] for hit in answer["hits"]["hits"]}


def scores(answer: dict[str, Any]) -> list[float]:
    return [hit["_score"] for hit in answer["hits"]["hits"]]


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())
def test_both_ways_rank_alike(stack: ProxyStack, ways: tuple[str, str], stage: str, body: dict[str, Any]) -> None:
    in_place, beside = (search(stack, index, {**body, "size": 60}, stage) for index in ways)

    assert beside[0] == in_place[0]
    assert scores(beside[1]) == pytest.approx(scores(in_place[1]))
    assert ranked(beside[1]) == pytest.approx(ranked(in_place[1]))
    assert beside[1]["hits"]["total"] == in_place[1]["hits"]["total"]


@pytest.mark.parametrize("stage", ["hybrid", "rerank"])
@pytest.mark.parametrize("body", [BODIES["plain"], BODIES["filter"]], ids=["plain", "filter"])
def test_pages_are_parts_of_the_whole(
    stack: ProxyStack, ways: tuple[str, str], stage: str, body: dict[str, Any]
) -> None:
    _, whole = search(stack, ways[1], {**body, "size": 60}, stage)

    pages = [search(stack, ways[1], {**body, "from": start, "size": 12}, stage)[1] for start in range(0, 60, 12)]

    assert [doc_id for page in pages for doc_id in ranked(page)] == list(ranked(whole))


def test_what_a_run_beside_writes_is_searched(node: EmbeddedNode, stack: ProxyStack, tmp_path: Path) -> None:
    name = unused_index_name()
    profile = stack.profile(generator=None)
    models = Models(stack.encoder, profile.encoder, word_spans)
    with client(node.url) as direct:
        for n in range(9):
            direct.index(index=name, id=f"d{n}", body={"title": WORDS[n % 13], "body": "plate", "n": n})
        direct.indices.refresh(index=name)
        try:
            run = Job(name, profile, models, connect(ClusterSettings(url=node.url)), IngestSettings(), tmp_path)
            assert run_beside(run, PREFIX).report.ledger.written == 9
            assert len(found(stack, name, "vector")) == 9

            direct.update(index=name, id="d3", body={"doc": {"n": 100}}, refresh=True)
            direct.delete(index=name, id="d4", refresh=True)
            assert not {"d3", "d4"} & set(found(stack, name, "vector"))

            assert run_beside(run, PREFIX).report.ledger.written == 1
            assert len(found(stack, name, "vector")) == 8
        finally:
            direct.indices.delete(index=f"{name},{PREFIX}{name}")


@pytest.fixture
def changing(node: EmbeddedNode, stack: ProxyStack) -> Iterator[tuple[OpenSearch, str]]:
    """An index with a companion, for a test that changes its documents."""
    name = unused_index_name()
    documents = {
        "words": ({"title": "wing flow", "body": "plate"}, []),
        "predicted": ({"title": "shoe", "body": "red"}, ["wing flow"]),
        "other": ({"title": "dress", "body": "blue"}, []),
    }
    with client(node.url) as direct:
        stack.fill_beside(direct, name, documents, settings={"number_of_replicas": 0})
        yield direct, name
        direct.indices.delete(index=f"{name},{PREFIX}{name}")


def found(stack: ProxyStack, index: str, stage: str = "expansion") -> list[str]:
    mark, answer = search(stack, index, {"query": WING}, stage)
    assert mark == stage
    return list(ranked(answer))


def test_a_deleted_document_is_gone_at_once(stack: ProxyStack, changing: tuple[OpenSearch, str]) -> None:
    direct, index = changing
    assert set(found(stack, index)) == {"words", "predicted"}

    direct.delete(index=index, id="predicted", refresh=True)

    assert found(stack, index) == ["words"]
    assert set(found(stack, index, "vector")) == {"words", "other"}


def test_a_changed_document_is_found_by_its_new_text_alone(stack: ProxyStack, changing: tuple[OpenSearch, str]) -> None:
    direct, index = changing
    enriched = {"predicted": ({"title": "shoe", "body": "green"}, ["wing flow"])}

    direct.index(index=index, id="predicted", body=enriched["predicted"][0], refresh=True)
    before = found(stack, index)
    by_vector = found(stack, index, "vector")
    stack.enrich_beside(direct, index, enriched)

    assert before == ["words"]
    assert "predicted" not in by_vector
    assert set(found(stack, index)) == {"words", "predicted"}


def test_without_its_companion_an_index_is_searched_as_ever(
    stack: ProxyStack, changing: tuple[OpenSearch, str]
) -> None:
    direct, index = changing
    direct.indices.delete(index=f"{PREFIX}{index}")

    mark, answer = search(stack, index, {"query": WING}, "hybrid")

    assert mark == "pass; reason=no_profile"
    assert list(ranked(answer)) == ["words"]
    direct.indices.create(index=f"{PREFIX}{index}")


def test_no_search_writes_to_the_applications_index(stack: ProxyStack, changing: tuple[OpenSearch, str]) -> None:
    direct, index = changing

    def state() -> Any:
        shards = direct.indices.stats(index=index, level="shards")["indices"][index]["shards"]["0"]
        return direct.indices.get(index=index), [shard["seq_no"]["max_seq_no"] for shard in shards]

    before = state()
    found(stack, index, "hybrid")
    assert state() == before
