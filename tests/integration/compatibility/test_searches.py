"""The query side on every engine: each stage through the proxy, with what applications ask beside."""

import base64
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from opensearchpy import OpenSearch

from benchmarks.pictures import SHAPES_CLIP
from benchmarks.pictures.made import Scene, caption, draw, png
from bridge.cluster import companion
from bridge.cluster.dialects import dialect_of
from bridge.profile import PassageSettings, RerankSettings
from tests import servers
from tests.command_line import output
from tests.integration.compatibility.conftest import Engine
from tests.proxy_stack import NESTED, PREFIX, ProxyStack

DOCUMENTS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "wing": (
        {"title": "wing pressure", "body": "supersonic flow over a wing", "kind": "paper", "n": 1},
        ["plate heat"],
    ),
    "plate": ({"title": "flat plate", "body": "boundary layer on a plate", "kind": "paper", "n": 2}, ["cheap wing"]),
    "shoe": ({"title": "red shoe", "body": "cheap red shoe for the garden", "kind": "ad", "n": 3}, ["blue dress"]),
    "dress": ({"title": "blue dress", "body": "a dress. and a shoe", "kind": "ad", "n": 4}, []),
    "file": ({"title": "read file", "body": "open a file. and read a line", "kind": "note", "n": 5}, ["copy folder"]),
} | {
    f"many-{i}": ({"title": f"wing {i}", "body": "flow " * (i % 5) + "wing", "kind": "many", "n": i}, [])
    for i in range(40)
}
PROPERTIES = {"kind": {"type": "keyword"}, "n": {"type": "integer"}}


LAYOUTS = {"single": PassageSettings(), "nested": NESTED}


def made(engine: Engine, stack: ProxyStack) -> dict[str, Any]:
    """How every index here is made, whichever way it is enriched."""
    return {
        "properties": PROPERTIES,
        "settings": {"number_of_shards": 2, "number_of_replicas": 0},
        "rerank": RerankSettings(depth=10),
        "window": 20,
        "sparse": stack.sparse(terms_type=dialect_of(engine.found).terms_type),
    }


@pytest.fixture(scope="session")
def enriched_indices(engine: Engine, stack: ProxyStack) -> Iterator[dict[str, str]]:
    """An enriched index for each layout of vectors."""
    names = {layout: servers.unused_index_name() for layout in LAYOUTS}
    with servers.client(engine.url) as direct:
        for layout, name in names.items():
            stack.fill(direct, name, DOCUMENTS, passages=LAYOUTS[layout], **made(engine, stack))
        yield names
        direct.indices.delete(index=",".join(names.values()))


@pytest.fixture(scope="session")
def beside_indices(engine: Engine, stack: ProxyStack) -> Iterator[dict[str, str]]:
    """The same documents as an application wrote them, and companions."""
    names = {layout: servers.unused_index_name() for layout in LAYOUTS}
    with servers.client(engine.url) as direct:
        for layout, name in names.items():
            stack.fill_beside(direct, name, DOCUMENTS, passages=LAYOUTS[layout], **made(engine, stack))
        yield names
        for name in names.values():
            companion.remove(direct, name, PREFIX)
            direct.indices.delete(index=name)


@pytest.fixture(params=["single", "nested"])
def both_ways(
    enriched_indices: dict[str, str], beside_indices: dict[str, str], request: pytest.FixtureRequest
) -> tuple[str, str]:
    """The same documents in place and beside."""
    return enriched_indices[request.param], beside_indices[request.param]


@pytest.fixture(params=["single", "nested"])
def enriched(enriched_indices: dict[str, str], request: pytest.FixtureRequest) -> str:
    """One after the other of them."""
    return enriched_indices[request.param]


@pytest.fixture
def through(stack: ProxyStack) -> Iterator[OpenSearch]:
    """A client that searches through the proxy."""
    with servers.client(stack.url) as opened:
        yield opened


def match(words: str, **more: Any) -> dict[str, Any]:
    return {"query": {"multi_match": {"query": words, "fields": ["title", "body"]}}, **more}


def ids(answer: dict[str, Any]) -> list[str]:
    return [hit["_id"] for hit in answer["hits"]["hits"]]


def staged(stack: ProxyStack, index: str, stage: str, body: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The `X-Bridge` header and the answer."""
    url = f"{stack.url}/{index}/_search"
    answered = requests.post(url, json=body, headers={"x-bridge": stage}, timeout=90)
    answered.raise_for_status()
    mark = answered.headers["X-Bridge"]
    assert "degraded" not in mark
    return mark, answered.json()


@pytest.mark.feature("stage expansion")
def test_predicted_queries_find_documents(stack: ProxyStack, enriched: str) -> None:
    mark, answer = staged(stack, enriched, "expansion", match("blue dress"))
    assert mark.startswith("expansion;")
    assert ids(answer) == ["dress", "shoe"]


@pytest.mark.feature("stage vector (k-NN)")
def test_vectors_find_documents_without_a_common_word(stack: ProxyStack, enriched: str) -> None:
    mark, answer = staged(stack, enriched, "vector", match("blue dress"))
    assert mark.startswith("vector;")
    assert ids(answer)[0] == "dress"
    assert len(ids(answer)) == 10


@pytest.mark.feature("stage sparse (weighted terms)")
@pytest.mark.parametrize(
    "conditions",
    [{"filter": [{"term": {"kind": "ad"}}]}, {"must_not": [{"term": {"kind": "many"}}]}, {}],
    ids=["filter", "must_not", "none"],
)
def test_terms_find_documents_and_explain_how(stack: ProxyStack, enriched: str, conditions: dict[str, Any]) -> None:
    """The toy's terms are words, and a document's weights their number."""
    query = {"bool": {"must": [match("shoe dress")["query"]], **conditions}}
    mark, answer = staged(stack, enriched, "sparse, explain", {"query": query})
    assert mark.startswith("sparse;")
    found = {hit["_id"]: hit["_bridge"] for hit in answer["hits"]["hits"] if "sparse" in hit["_bridge"]["legs"]}
    assert found.keys() == {"shoe", "dress"}
    for explained in found.values():
        score = explained["legs"]["sparse"]["score"]
        assert sum(term["score"] for term in explained["terms"]) == pytest.approx(score)
        assert {term["term"] for term in explained["terms"]} <= {"shoe", "dress"}
        for term in explained["terms"]:
            assert term["score"] == pytest.approx(term["query"] * term["document"])


@pytest.mark.feature("stage sparse (weighted terms)")
def test_terms_have_a_weight_in_the_fusion(stack: ProxyStack, enriched: str) -> None:
    _, without = staged(stack, enriched, "hybrid, explain", match("blue dress"))
    assert all("sparse" not in hit["_bridge"]["legs"] for hit in without["hits"]["hits"])
    mark, answer = staged(stack, enriched, "hybrid, sparse=0.5, explain", match("blue dress"))
    assert mark.startswith("hybrid;")
    assert {"expansion", "vector", "sparse"} <= {
        leg for hit in answer["hits"]["hits"] for leg in hit["_bridge"]["legs"]
    }


@pytest.mark.feature("stage image (pictures), in place and beside")
@pytest.mark.parametrize("way", ["in-place", "beside"])
def test_questions_find_pictures(
    engine: Engine, stack: ProxyStack, model_folder: Path, tmp_path: Path, index_name: str, way: str
) -> None:
    scenes = [
        Scene(2, "blue", "cross", "black"),
        Scene(1, "red", "circle", "white"),
        Scene(3, "green", "square", "grey"),
    ]
    options = ["--text-field", "title", "--image-field", "photo", "--image-encoder", str(SHAPES_CLIP), f"--{way}"]
    environment = {"BRIDGE_INGEST__ENCODER": str(model_folder / "encoder"), "BRIDGE_CLUSTER__URL": engine.url}
    photo = {"type": "keyword", "index": False, "doc_values": False}
    mapping = {"properties": {"title": {"type": "text"}, "photo": photo}}
    vectors = {} if engine.is_elasticsearch or way == "beside" else {"index.knn": True}
    with servers.client(engine.url) as direct:
        direct.indices.create(index=index_name, body={"settings": vectors, "mappings": mapping})
        for scene in scenes:
            image = base64.b64encode(png(draw(scene, random.Random(1)))).decode()
            body = {"title": "a poster", "photo": f"data:image/png;base64,{image}"}
            direct.index(index=index_name, id=scene.name, body=body)
        direct.indices.refresh(index=index_name)
        try:
            output("backfill", index_name, *options, "--no-expansion", "--state-folder", str(tmp_path), env=environment)
            direct.indices.refresh(index="_all")
            for scene in scenes:
                question = {"query": {"match": {"title": caption(scene, random.Random(2))}}}
                mark, answer = staged(stack, index_name, "image", question)
                assert mark.startswith("image;")
                assert ids(answer)[0] == scene.name
        finally:
            companion.remove(direct, index_name, PREFIX)


@pytest.mark.feature("stage hybrid")
def test_the_legs_are_fused(stack: ProxyStack, enriched: str) -> None:
    mark, answer = staged(stack, enriched, "hybrid", match("blue dress"))
    assert mark.startswith("hybrid;")
    assert {"dress", "shoe"} <= set(ids(answer))
    assert "_neural" not in answer["hits"]["hits"][0]["_source"]


@pytest.mark.feature("stage smoothing (codes in doc values)")
def test_documents_that_resemble_each_other_get_scores_that_resemble_each_other(
    stack: ProxyStack, enriched: str
) -> None:
    mark, answer = staged(stack, enriched, "smoothing, explain", match("blue dress", size=20))
    assert mark.startswith("hybrid+smoothing;")
    smoothed = [hit["_bridge"]["smoothed"] for hit in answer["hits"]["hits"] if "smoothed" in hit["_bridge"]]
    assert {each["_id"] for of in smoothed for each in of["neighbours"]} <= set(ids(answer))
    assert any(of["neighbours"] for of in smoothed)
    scores = [hit["_bridge"]["fused_score"] for hit in answer["hits"]["hits"]]
    assert scores == sorted(scores, reverse=True)


@pytest.mark.feature("diverse rankings (codes in doc values)")
def test_documents_that_resemble_those_before_them_sink(stack: ProxyStack, enriched: str) -> None:
    mark, answer = staged(stack, enriched, "hybrid, diverse=0.5, explain", match("blue dress", size=20))
    assert mark.startswith("hybrid+diverse;")
    assert any(hit["_bridge"]["nearest_above"] > 0 for hit in answer["hits"]["hits"])
    assert {"dress", "shoe"} <= set(ids(answer))


@pytest.mark.feature("stage rerank")
def test_the_first_documents_are_reranked(stack: ProxyStack, enriched: str) -> None:
    mark, answer = staged(stack, enriched, "rerank", match("blue dress"))
    assert mark.startswith("hybrid+rerank;")
    assert ids(answer)[0] == "dress"


@pytest.mark.feature("stage cascade")
def test_in_a_cascade_a_small_model_chooses_what_the_large_one_reads(stack: ProxyStack, enriched: str) -> None:
    mark, answer = staged(stack, enriched, "cascade", match("blue dress"))
    assert mark.startswith("hybrid+cascade;")
    assert ids(answer)[0] == "dress"


@pytest.mark.feature("filters, exclusions and post_filter inside the k-NN query")
@pytest.mark.parametrize(
    "body",
    [
        pytest.param(
            {"query": {"bool": {"must": [match("wing flow")["query"]], "filter": [{"term": {"kind": "paper"}}]}}},
            id="filter",
        ),
        pytest.param(
            {
                "query": {
                    "bool": {
                        "must": match("wing flow")["query"],
                        "filter": [{"range": {"n": {"lte": 2}}}],
                        "must_not": {"terms": {"kind": ["many", "ad"]}},
                    }
                }
            },
            id="must_not",
        ),
        pytest.param(match("wing flow", post_filter={"term": {"kind": "paper"}}), id="post_filter"),
    ],
)
def test_conditions_hold_inside_the_vector_leg(stack: ProxyStack, enriched: str, body: dict[str, Any]) -> None:
    """The nearest documents are all of another kind: a filter beside the k-NN query would leave nothing."""
    _, answer = staged(stack, enriched, "vector", body | {"size": 30})
    assert set(ids(answer)) == {"wing", "plate"}


@pytest.mark.feature("totals, aggregations and highlights as in the application's own answer")
def test_the_rest_of_the_answer_is_the_applications_own(stack: ProxyStack, enriched: str) -> None:
    body = match("blue dress", aggs={"kinds": {"terms": {"field": "kind"}}}, highlight={"fields": {"title": {}}})
    _, own = staged(stack, enriched, "off", body)
    mark, answer = staged(stack, enriched, "rerank", body)
    assert mark.startswith("hybrid+rerank;")
    assert answer["hits"]["total"] == own["hits"]["total"]
    assert answer["aggregations"] == own["aggregations"]
    highlights = {hit["_id"]: hit.get("highlight") for hit in answer["hits"]["hits"]}
    assert highlights["dress"] == {"title": ["<em>blue</em> <em>dress</em>"]}


@pytest.mark.feature("pages of one ranking: nothing twice, nothing missing")
def test_pages_fit_together(stack: ProxyStack, enriched: str) -> None:
    _, whole = staged(stack, enriched, "rerank", match("wing", size=40))
    pages = [
        staged(stack, enriched, "rerank", match("wing", size=8, **{"from": start}))[1] for start in range(0, 40, 8)
    ]
    assert [doc_id for page in pages for doc_id in ids(page)] == ids(whole)
    assert len(set(ids(whole))) == 40


@pytest.mark.feature("collapse: one document of each group, with the cluster's own inner_hits")
@pytest.mark.parametrize("field", ["kind", "n"])
def test_groups_are_the_clusters_own(stack: ProxyStack, enriched: str, field: str) -> None:
    body = match("shoe file", size=60, collapse={"field": field, "inner_hits": {"name": "all", "size": 50}})
    _, own = staged(stack, enriched, "lexical", body)
    mark, answer = staged(stack, enriched, "rerank", body)
    assert mark.startswith("hybrid+rerank;")
    own_groups, groups = (
        [(hit["fields"][field][0], hit["inner_hits"]) for hit in each["hits"]["hits"]] for each in (own, answer)
    )
    assert len(dict(groups)) == len(groups) > len(own_groups) > 1
    assert dict(own_groups).items() <= dict(groups).items()
    for group, inner in groups:
        assert {DOCUMENTS[hit["_id"]][0][field] for hit in inner["all"]["hits"]["hits"]} == {group}
    assert answer["hits"]["total"] == own["hits"]["total"]


@pytest.mark.feature("pins and boosts of the application's own query")
def test_pins_stay_and_boosts_lift(stack: ProxyStack, enriched: str) -> None:
    pins = [
        {"constant_score": {"filter": {"ids": {"values": [doc_id]}}, "boost": boost}}
        for doc_id, boost in (("file", 2000), ("plate", 1000))
    ]
    query = {"bool": {"should": [match("blue dress")["query"], *pins]}}
    functions = {"field_value_factor": {"field": "n", "modifier": "log2p"}}
    body = {"query": {"function_score": {"query": query, **functions, "boost_mode": "sum"}}, "size": 20}
    mark, answer = staged(stack, enriched, "rerank, explain", body)
    assert mark.startswith("hybrid+rerank;")
    assert ids(answer)[:2] == ["file", "plate"]
    lifts = {hit["_id"]: hit["_bridge"].get("lift") for hit in answer["hits"]["hits"][2:]}
    assert len(lifts) > 5
    assert sorted(lifts, key=lambda doc_id: lifts[doc_id]) == sorted(
        lifts, key=lambda doc_id: DOCUMENTS[doc_id][0]["n"]
    )


@pytest.mark.feature("several searches in one request (_msearch)")
def test_searches_of_one_request_are_answered_each_in_its_place(through: OpenSearch, enriched: str) -> None:
    searches = [{"index": enriched}, match("blue dress"), {"index": enriched}, match("wing", sort=["n"], size=2)]
    first, second = through.msearch(body=searches)["responses"]
    assert {"dress", "shoe"} <= set(ids(first))
    assert [hit["sort"] for hit in second["hits"]["hits"]] == [[0], [1]]


def ranked(answer: dict[str, Any]) -> dict[str, Any]:
    return {hit["_id"]: pytest.approx(hit["_score"]) for hit in answer["hits"]["hits"]}


@pytest.mark.feature("searches beside: ranked as in place, with filters, in pages and in _msearch")
@pytest.mark.parametrize("stage", ["expansion", "vector", "sparse", "hybrid", "smoothing", "rerank", "cascade"])
def test_a_search_beside_ranks_as_in_place(stack: ProxyStack, both_ways: tuple[str, str], stage: str) -> None:
    condition = {"bool": {"must": [match("wing flow")["query"]], "filter": [{"term": {"kind": "paper"}}]}}
    # Who has asked once gets hits with the candidates.
    for body in (match("blue dress"), match("blue dress"), match("wing", size=40), {"query": condition}):
        in_place, beside = (staged(stack, index, stage, body) for index in both_ways)
        assert beside[0].split("; took")[0] == in_place[0].split("; took")[0]
        assert ranked(beside[1]) == ranked(in_place[1])
        assert [hit["_source"] for hit in beside[1]["hits"]["hits"]] == [DOCUMENTS[i][0] for i in ids(beside[1])]


@pytest.mark.feature("searches beside: ranked as in place, with filters, in pages and in _msearch")
def test_pages_of_a_search_beside_fit_together(stack: ProxyStack, both_ways: tuple[str, str]) -> None:
    _, whole = staged(stack, both_ways[1], "rerank", match("wing", size=40))
    pages = [
        staged(stack, both_ways[1], "rerank", match("wing", size=8, **{"from": start}))[1] for start in range(0, 40, 8)
    ]
    assert [doc_id for page in pages for doc_id in ids(page)] == ids(whole)


@pytest.mark.feature("searches beside: ranked as in place, with filters, in pages and in _msearch")
def test_searches_beside_stand_in_one_request(through: OpenSearch, both_ways: tuple[str, str]) -> None:
    in_place, beside = both_ways
    searches = [{"index": beside}, match("blue dress"), {"index": in_place}, match("blue dress"), {"index": beside}]
    first, second, third = through.msearch(body=[*searches, match("wing", sort=["n"], size=2)])["responses"]
    assert ids(first)[0] == "dress"
    assert ranked(first) == ranked(second)
    assert [hit["sort"] for hit in third["hits"]["hits"]] == [[0], [1]]


@pytest.mark.feature("misspelt words repaired for the bridge's own legs")
def test_a_misspelt_word_counts_as_the_near_one_that_documents_hold(
    stack: ProxyStack, both_ways: tuple[str, str]
) -> None:
    for index in both_ways:
        mark, answer = staged(stack, index, "rerank, repair", match("cheap sheo"))
        _, correct = staged(stack, index, "rerank", match("cheap shoe"))
        assert "; repaired=sheo>shoe;" in mark
        assert ids(answer)[:3] == ids(correct)[:3]
        assert "repaired" not in staged(stack, index, "rerank, repair", match("cheap shoe"))[0]


@pytest.mark.feature("the sentence that answers, where a hit has no highlight")
def test_a_hit_that_shares_no_word_gets_a_sentence(stack: ProxyStack, both_ways: tuple[str, str]) -> None:
    body = match("copy folder", highlight={"fields": {"body": {}}})
    for index in both_ways:
        _, without = staged(stack, index, "expansion", body)
        _, answer = staged(stack, index, "expansion, sentences", body)
        assert ids(answer)[0] == "file"
        assert "highlight" not in without["hits"]["hits"][0]
        assert answer["hits"]["hits"][0]["highlight"] == {"body": ["<em>open a file. and read a line</em>"]}


@pytest.mark.feature("suggestions from predicted queries")
def test_what_is_typed_is_completed_by_predicted_queries(stack: ProxyStack, both_ways: tuple[str, str]) -> None:
    for index in both_ways:
        wanted = {"index": index, "prefix": "wing che"}
        answered = requests.get(f"{stack.admin_url}/_bridge/suggest", params=wanted, timeout=90)
        assert answered.json()["suggestions"] == [{"text": "cheap wing", "index": index, "doc_id": "plate"}]


@pytest.mark.feature("scroll passes through")
def test_scrolls_pass_through(through: OpenSearch, enriched: str) -> None:
    body = {"size": 10, "query": {"match_all": {}}}
    page = through.search(index=enriched, body=body, params={"scroll": "1m"})
    seen = ids(page)
    while page["hits"]["hits"]:
        page = through.scroll(body={"scroll_id": page["_scroll_id"], "scroll": "1m"})
        seen += ids(page)
    through.clear_scroll(body={"scroll_id": [page["_scroll_id"]]})
    assert sorted(seen) == sorted(DOCUMENTS)


@pytest.mark.feature("errors are the cluster's own")
def test_errors_come_back_as_the_cluster_gave_them(stack: ProxyStack, engine: Engine, enriched: str) -> None:
    body = match("wing", aggs={"kinds": {"no_such_aggregation": {}}})
    upgraded, own = (
        requests.post(f"{url}/{enriched}/_search", json=body, timeout=90) for url in (stack.url, engine.url)
    )
    assert own.status_code == 400
    assert (upgraded.status_code, upgraded.content) == (own.status_code, own.content)
