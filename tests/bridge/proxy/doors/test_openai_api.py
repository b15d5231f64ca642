import base64
import json
from typing import Any

import pytest
from aiohttp import web

from tests.bridge.proxy.conftest import MakeStack, Stack
from tests.bridge.proxy.scripted_index import CALIBRATED, ScriptedIndex
from tests.fake_cluster import Reply, kind_sidecar

TITLES = {"d": "red shoe", "a": "bread", "e": "shoe"}


async def post(stack: Stack, path: str, body: Any, **headers: str) -> tuple[int, dict[str, Any], Any]:
    """Status, answer and headers."""
    url = f"{stack.proxy.admin_url}/_bridge/openai/v1/{path}"
    given = {"Content-Type": "application/json"} | headers
    async with stack.client.post(url, data=json.dumps(body), headers=given) as answer:
        return answer.status, await answer.json(), answer.headers


async def search(stack: Stack, **body: Any) -> list[dict[str, Any]]:
    """The results of a search."""
    status, answer, _ = await post(stack, "vector_stores/docs/search", body)
    assert status == 200, answer
    data: list[dict[str, Any]] = answer["data"]
    return data


async def test_a_search_has_openais_shape(make_stack: MakeStack) -> None:
    stack = await make_stack(ScriptedIndex(titles=TITLES))

    status, answer, headers = await post(
        stack, "vector_stores/docs/search", {"query": "red shoe", "max_num_results": 1}, authorization="alice"
    )

    assert status == 200
    assert answer == {
        "object": "vector_store.search_results.page",
        "search_query": ["red shoe"],
        "data": [
            {
                "file_id": "d",
                "filename": "docs/d",
                "score": 1.0,
                "attributes": {"index": "docs", "start": 0, "end": 8},
                "content": [{"type": "text", "text": "red shoe"}],
            }
        ],
        "has_more": False,
        "next_page": None,
    }
    assert headers["X-Bridge"].startswith("hybrid+rerank; took_ms=")
    assert {each.header("authorization") for each in stack.cluster.received} == {"alice"}


async def test_a_result_says_how_probable_it_is_that_the_index_answers_its_query(make_stack: MakeStack) -> None:
    stack = await make_stack(ScriptedIndex(titles=TITLES, profile=CALIBRATED))

    found = await search(stack, query=["red shoe", "bread"])

    assert {each["attributes"]["confidence"] for each in found} == {0.8808}


async def test_several_queries_make_one_list_with_each_document_once(make_stack: MakeStack) -> None:
    stack = await make_stack(ScriptedIndex(titles=TITLES))

    found = await search(stack, query=["red shoe", "bread"])

    scores = [each["score"] for each in found]
    ids = [each["file_id"] for each in found]
    assert scores == sorted(scores, reverse=True)
    assert len(set(ids)) == len(ids)
    assert {"d", "a"} <= set(ids[:2])


async def test_results_below_a_threshold_are_left_out_and_the_ranker_may_be_off(make_stack: MakeStack) -> None:
    stack = await make_stack(ScriptedIndex(titles=TITLES))

    best = await search(stack, query="red shoe", ranking_options={"score_threshold": 0.99}, rewrite_query=True)
    fused = await search(stack, query="red shoe", ranking_options={"ranker": "none"})

    assert [each["file_id"] for each in best] == ["d"]
    assert max(each["score"] for each in fused) <= 2 / 3


def of(kind: str, value: Any) -> dict[str, Any]:
    return {"type": kind, "key": "n", "value": value}


FILTERS: dict[str, tuple[Any, Any]] = {
    "eq": (of("eq", "en"), {"term": {"n": "en"}}),
    "ne": (of("ne", True), {"bool": {"must_not": [{"term": {"n": True}}]}}),
    "gt": (of("gt", 3), {"range": {"n": {"gt": 3.0}}}),
    "gte": (of("gte", 3.5), {"range": {"n": {"gte": 3.5}}}),
    "lt": (of("lt", 3.5), {"range": {"n": {"lt": 3.5}}}),
    "lte": (of("lte", "2026-01-01"), {"range": {"n": {"lte": "2026-01-01"}}}),
    "in": (of("in", ["a", "b"]), {"terms": {"n": ["a", "b"]}}),
    "nin": (of("nin", ["a", 1.5]), {"bool": {"must_not": [{"terms": {"n": ["a", 1.5]}}]}}),
    "and": (
        {"type": "and", "filters": [of("eq", "a"), of("ne", "b")]},
        {"bool": {"filter": [{"term": {"n": "a"}}, {"bool": {"must_not": [{"term": {"n": "b"}}]}}]}},
    ),
    "or in and": (
        {"type": "and", "filters": [{"type": "or", "filters": [of("eq", "a"), of("eq", "b")]}]},
        {
            "bool": {
                "filter": [
                    {"bool": {"should": [{"term": {"n": "a"}}, {"term": {"n": "b"}}], "minimum_should_match": 1}}
                ]
            }
        },
    ),
}


@pytest.mark.parametrize("name", FILTERS)
async def test_filters_hold_in_the_cluster(make_stack: MakeStack, name: str) -> None:
    filters, clause = FILTERS[name]
    stack = await make_stack(ScriptedIndex())

    await search(stack, query="red shoe", filters=filters)

    [legs] = [each.body for each in stack.cluster.requests("_msearch") if b'"knn":{' in each.body]
    assert json.loads(legs.splitlines()[1])["query"]["bool"]["filter"] == [clause]


DEEP: dict[str, Any] = of("eq", "a")
for _ in range(60):
    DEEP = {"type": "and", "filters": [DEEP]}

WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no query": ({}, "query"),
    "blank query": ({"query": " "}, "query"),
    "no queries": ({"query": []}, "query"),
    "too many results": ({"query": "x", "max_num_results": 51}, "max_num_results"),
    "unknown comparison": ({"query": "x", "filters": of("like", "a")}, "like"),
    "a list for eq": ({"query": "x", "filters": of("eq", ["a"])}, "eq"),
    "no list for in": ({"query": "x", "filters": of("in", "a")}, "in"),
    "no key": ({"query": "x", "filters": {"type": "eq", "value": 1}}, "key"),
    "nothing to combine": ({"query": "x", "filters": {"type": "or", "filters": []}}, "length"),
    "too deep": ({"query": "x", "filters": DEEP}, "levels"),
    "threshold": ({"query": "x", "ranking_options": {"score_threshold": 2}}, "score_threshold"),
    "unknown member": ({"query": "x", "top_k": 3}, "top_k"),
}


@pytest.mark.parametrize("name", WRONG)
async def test_wrong_requests_are_refused_in_openais_shape(make_stack: MakeStack, name: str) -> None:
    body, told = WRONG[name]
    stack = await make_stack(ScriptedIndex())

    status, answer, _ = await post(stack, "vector_stores/docs/search", body)

    assert (status, answer["error"]["type"]) == (400, "invalid_request_error")
    assert told in answer["error"]["message"]
    assert stack.cluster.received == []


REFUSED: dict[str, tuple[ScriptedIndex, str, int, str]] = {
    "forbidden": (ScriptedIndex(faults={"_msearch": Reply(403, b"{}")}), "docs", 403, "permission_error"),
    "away": (ScriptedIndex(faults={"_mapping": Reply(break_after=0)}), "docs", 503, "server_error"),
    "not enriched": (ScriptedIndex(profile=None), "docs", 400, "invalid_request_error"),
    "no index": (ScriptedIndex(), "..%2F_cluster", 400, "invalid_request_error"),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_refusals_have_openais_shape(make_stack: MakeStack, name: str) -> None:
    index, store, expected, kind = REFUSED[name]
    stack = await make_stack(index)

    status, answer, _ = await post(stack, f"vector_stores/{store}/search", {"query": "red shoe"})

    assert (status, answer["error"]["type"]) == (expected, kind)


async def test_what_is_not_here_is_not_found(make_stack: MakeStack) -> None:
    stack = await make_stack(ScriptedIndex())

    status, answer, _ = await post(stack, "chat/completions", {})

    assert (status, answer["error"]["type"]) == (404, "not_found_error")
    assert "chat/completions" in answer["error"]["message"]


async def test_embeddings_are_the_sidecars_and_so_are_its_refusals(make_stack: MakeStack) -> None:
    packed = base64.b64encode(bytes(8)).decode()
    asked: list[Any] = []

    async def sidecar(path: str, body: dict[str, Any]) -> web.Response:
        asked.append((path, body))
        if body["model"] == "other":
            return web.json_response({"error": {"message": "model other", "type": "not_found_error"}}, status=404)
        return web.json_response({"data": [{"embedding": packed, "index": 0}]})

    stack = await make_stack(ScriptedIndex(), sidecar)
    body = {"model": "toy", "input": ["red shoe"], "encoding_format": "base64"}

    status, answer, headers = await post(stack, "embeddings", body)
    refused = await post(stack, "embeddings", body | {"model": "other"})

    assert asked[0] == ("/v1/embeddings", body)
    assert (status, answer["data"][0]["embedding"]) == (200, packed)
    assert headers["X-Bridge"].startswith("embed; took_ms=")
    assert (refused[0], refused[1]["error"]["message"]) == (404, "model other")
    assert stack.cluster.received == []


@pytest.mark.parametrize("status", [401, 403])
async def test_a_wrong_key_of_the_sidecars_is_no_fault_of_the_callers(make_stack: MakeStack, status: int) -> None:
    async def sidecar(path: str, body: dict[str, Any]) -> web.Response:
        return web.json_response({}, status=status)

    stack = await make_stack(ScriptedIndex(), sidecar)

    answered, answer, _ = await post(stack, "embeddings", {"model": "toy", "input": "x"})

    assert (answered, answer["error"]["type"]) == (503, "server_error")
    assert "sidecar.api_key" in answer["error"]["message"]


async def test_another_embedder_is_asked_itself(make_stack: MakeStack) -> None:
    embedder = {"api": "tei", "url": "http://127.0.0.1:1/embed"}
    stack = await make_stack(ScriptedIndex(), kind_sidecar, sections={"embedder": embedder})

    status, answer, _ = await post(stack, "embeddings", {"model": "toy", "input": "x"})

    assert (status, answer["error"]["code"]) == (503, "embedder_unavailable")
    assert "embedder.url" in answer["error"]["message"]
