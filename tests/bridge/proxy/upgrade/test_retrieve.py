import asyncio
import json
import socket
from typing import Any

import aiohttp
import msgspec
import pytest
from aiohttp import web

from bridge.profile import FusionSettings, PassageSettings, SearchRules
from bridge.proxy.server.app import running
from bridge.settings import ClusterSettings, ProxySettings, Settings
from tests.bridge.proxy.conftest import MakeStack, Stack
from tests.bridge.proxy.scripted_index import CALIBRATED, PROFILE, ScriptedIndex
from tests.fake_cluster import Reply, kind_sidecar

NESTED = msgspec.structs.replace(PROFILE, passages=PassageSettings(layout="nested"))
TITLES = {"d": "bread. red shoe", "a": "bread", "e": "shoe"}


async def retrieve(stack: Stack, body: Any, **headers: str) -> tuple[int, dict[str, Any]]:
    """Status and answer."""
    url = f"{stack.proxy.admin_url}/_bridge/retrieve"
    given = {"Content-Type": "application/json"} | headers
    async with stack.client.post(url, data=json.dumps(body), headers=given) as answer:
        return answer.status, await answer.json()


async def test_each_query_gets_its_passages_with_offsets_and_scores(make_stack: MakeStack) -> None:
    stack = await make_stack(ScriptedIndex(profile=NESTED, titles=TITLES, passages={"d": [(7, 15)]}))

    status, answer = await retrieve(stack, {"index": "docs", "queries": ["red shoe", "bread"], "size": 2})

    assert status == 200
    first, second = answer["results"]
    assert (first["query"], first["stages"], first["degraded"]) == ("red shoe", "hybrid+rerank", [])
    assert first["confidence"] is None
    assert first["passages"][0] == {
        "rank": 1,
        "index": "docs",
        "doc_id": "d",
        "score": 3.0,
        "start": 7,
        "end": 15,
        "text": "red shoe",
    }
    assert first["passages"][1]["text"] == "shoe"
    assert second["passages"][0]["text"] == "bread"


async def test_each_query_says_how_probable_it_is_that_the_index_answers_it(make_stack: MakeStack) -> None:
    stack = await make_stack(ScriptedIndex(profile=CALIBRATED))

    _, answer = await retrieve(stack, {"index": "docs", "queries": ["red shoe"]})

    assert [result["confidence"] for result in answer["results"]] == [pytest.approx(0.8808)]


async def test_what_resembles_a_better_document_counts_less(make_stack: MakeStack) -> None:
    """`a` and `b` are alike, `c` is not."""
    profile = msgspec.structs.replace(PROFILE, codes="sign", fusion=FusionSettings(method="minmax"))
    codes = {"a": "/w==", "b": "/w==", "c": "AA==", "d": "AA==", "e": "AA=="}
    index = ScriptedIndex(profile=profile, codes=codes, expanded="abc", near="abc", compared="abc")
    asked = {"index": "docs", "queries": ["red shoe"], "stage": "hybrid"}

    found = {}
    stack = await make_stack(index)
    for share in (0, None, 0.9):
        _, answer = await retrieve(stack, asked if share is None else asked | {"diverse": share})
        [result] = answer["results"]
        found[share] = result["stages"], "".join(passage["doc_id"] for passage in result["passages"])

    assert found == {0: ("hybrid", "abc"), None: ("hybrid+diverse", "abc"), 0.9: ("hybrid+diverse", "acb")}


async def test_the_indexs_rule_decides_if_the_request_does_not(make_stack: MakeStack) -> None:
    profile = msgspec.structs.replace(
        PROFILE, codes="sign", fusion=FusionSettings(method="minmax"), rules=SearchRules(diversity=0.9)
    )
    stack = await make_stack(
        ScriptedIndex(profile=profile, codes={"a": "/w==", "b": "/w=="}, expanded="abc", near="abc", compared="abc")
    )

    _, answer = await retrieve(stack, {"index": "docs", "queries": ["red shoe"], "stage": "hybrid"})

    assert "".join(passage["doc_id"] for passage in answer["results"][0]["passages"]) == "acb"


async def test_filters_hold_in_every_leg(make_stack: MakeStack) -> None:
    stack = await make_stack(ScriptedIndex())
    public = {"term": {"public": 1.50}}

    status, _ = await retrieve(stack, {"index": "docs", "queries": ["red shoe"], "filter": public, "stage": "hybrid"})

    [legs] = [request.body for request in stack.cluster.requests("_msearch") if b'"knn":{' in request.body]
    expansion, vector = legs.splitlines()[1::2]
    assert status == 200
    assert json.loads(expansion)["query"]["bool"]["filter"] == [public]
    assert json.loads(vector)["query"]["bool"]["must"][0]["knn"]["_neural.embedding"]["filter"]["bool"]["filter"] == [
        public
    ]


@pytest.mark.case("P11")
async def test_everything_is_asked_in_the_callers_name(make_stack: MakeStack) -> None:
    stack = await make_stack(ScriptedIndex())

    await retrieve(stack, {"index": "docs", "queries": ["red shoe"]}, authorization="alice", cookie="session=1")

    assert {request.header("authorization") for request in stack.cluster.received} == {"alice"}
    assert {request.header("cookie") for request in stack.cluster.received} == {"session=1"}


DENIED = {"error": {"type": "security_exception"}, "status": 403}


@pytest.mark.parametrize(
    "index",
    [
        ScriptedIndex(faults={"_msearch": Reply(403, b"{}")}),
        ScriptedIndex(legs=dict.fromkeys(("expansion", "vector", "exact"), DENIED)),
    ],
    ids=["as a whole", "each leg"],
)
async def test_a_caller_who_may_not_search_is_refused(make_stack: MakeStack, index: ScriptedIndex) -> None:
    stack = await make_stack(index)

    status, answer = await retrieve(stack, {"index": "docs", "queries": ["red shoe"]})

    assert (status, answer["error"]["type"]) == (403, "security_exception")


async def test_a_filter_that_the_cluster_does_not_take_is_refused(make_stack: MakeStack) -> None:
    error = b'{"error":{"type":"parsing_exception","reason":"unknown query [trm]"},"status":400}'
    stack = await make_stack(ScriptedIndex(faults={"_msearch": Reply(400, error)}))

    asked = {"index": "docs", "queries": ["red shoe"], "filter": {"trm": {"lang": "en"}}}
    status, answer = await retrieve(stack, asked)

    assert (status, answer["error"]["type"]) == (400, "illegal_argument_exception")
    assert "filter" in answer["error"]["reason"]


@pytest.mark.case("P52")
@pytest.mark.parametrize("kind", ["query_shard_exception", "parsing_exception", "a_kind_of_tomorrow"])
async def test_a_filter_that_each_search_is_refused_for_is_the_requests_fault(make_stack: MakeStack, kind: str) -> None:
    error = {"error": {"type": "search_phase_execution_exception", "root_cause": [{"type": kind}]}, "status": 400}
    stack = await make_stack(ScriptedIndex(legs=dict.fromkeys(("expansion", "vector", "exact"), error)))

    asked = {"index": "docs", "queries": ["red shoe"], "filter": {"range": {"n": {"gte": "no number"}}}}
    status, answer = await retrieve(stack, asked)

    assert (status, answer["error"]["type"]) == (400, "illegal_argument_exception")
    assert "filter" in answer["error"]["reason"]


FAILED = {"error": {"type": "search_phase_execution_exception"}, "status": 503}
OUTAGES = {
    "the mapping breaks off": ScriptedIndex(faults={"_mapping": Reply(break_after=0)}),
    "no mapping": ScriptedIndex(faults={"_mapping": Reply(503, b"{}")}),
    "a slow mapping": ScriptedIndex(faults={"_mapping": Reply(delay_s=60.0)}),
    "the legs break off": ScriptedIndex(faults={"_msearch": Reply(break_after=0)}),
    "no legs": ScriptedIndex(faults={"_msearch": Reply(503, b"{}")}),
    "slow legs": ScriptedIndex(faults={"_msearch": Reply(delay_s=60.0)}),
    "each leg fails": ScriptedIndex(legs=dict.fromkeys(("expansion", "vector", "exact"), FAILED)),
}


@pytest.mark.case("P52")
@pytest.mark.parametrize("name", OUTAGES)
async def test_a_cluster_that_fails_is_no_fault_of_the_request(make_stack: MakeStack, name: str) -> None:
    stack = await make_stack(OUTAGES[name], budget_ms=1000)

    status, answer = await retrieve(stack, {"index": "docs", "queries": ["red shoe"]})

    assert (status, answer["error"]["type"]) == (503, "cluster_unavailable_exception")


@pytest.mark.case("P52")
async def test_a_cluster_that_is_away_is_no_fault_of_the_request() -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        cluster = ClusterSettings(url=f"http://127.0.0.1:{nobody.getsockname()[1]}")
        settings = Settings(cluster=cluster, proxy=ProxySettings(port=0, admin_port=0))
        async with running(settings) as proxy, aiohttp.ClientSession() as client:
            body = {"index": "docs", "queries": ["red shoe"]}
            async with client.post(f"{proxy.admin_url}/_bridge/retrieve", json=body) as answer:
                assert answer.status == 503
                assert (await answer.json())["error"]["type"] == "cluster_unavailable_exception"


@pytest.mark.case("P54")
async def test_half_a_surrogate_pair_in_a_document_or_a_question_costs_no_passage(make_stack: MakeStack) -> None:
    stack = await make_stack(ScriptedIndex(titles={"a": "red \ud83d"}))

    status, answer = await retrieve(stack, {"index": "docs", "queries": ["red \ud83d", "shoe"]})

    assert status == 200
    assert [result["query"] for result in answer["results"]] == ["red \ufffd", "shoe"]
    assert [len(result["passages"]) for result in answer["results"]] == [5, 5]
    assert [result["degraded"] for result in answer["results"]] == [[], []]
    assert "red \ufffd" in [passage["text"] for passage in answer["results"][0]["passages"]]


async def test_what_could_not_be_done_is_told(make_stack: MakeStack) -> None:
    stack = await make_stack(ScriptedIndex(faults={"texts": Reply(500, b"{}")}))

    status, answer = await retrieve(stack, {"index": "docs", "queries": ["red shoe"]})

    assert status == 200
    assert answer["results"][0]["passages"] == []
    assert set(answer["results"][0]["degraded"]) == {"texts_unavailable"}


async def test_a_reranker_that_takes_all_the_time_leaves_the_passages(make_stack: MakeStack) -> None:
    async def slow(path: str, body: dict[str, Any]) -> web.Response:
        if path == "/rerank":
            await asyncio.sleep(30)
        return await kind_sidecar(path, body)

    stack = await make_stack(ScriptedIndex(), slow, budget_ms=3000)

    _, answer = await retrieve(stack, {"index": "docs", "queries": ["red shoe"]})

    assert answer["results"][0]["degraded"] == ["rerank_slow"]
    assert len(answer["results"][0]["passages"]) == 5


WRONG: dict[str, tuple[Any, str]] = {
    "no object": ([], "object"),
    "no queries": ({"index": "docs", "queries": []}, "queries"),
    "blank query": ({"index": "docs", "queries": [" "]}, "queries"),
    "too many queries": ({"index": "docs", "queries": ["x"] * 101}, "queries"),
    "too many passages": ({"index": "docs", "queries": ["x"], "size": 101}, "size"),
    "unknown key": ({"index": "docs", "queries": ["x"], "top_k": 3}, "top_k"),
    "unknown stage": ({"index": "docs", "queries": ["x"], "stage": "fast"}, "stage"),
    "a filter that is no clause": ({"index": "docs", "queries": ["x"], "filter": "public"}, "filter"),
    "all indices": ({"index": "_all", "queries": ["x"]}, "_all"),
    "a path": ({"index": "../_cluster", "queries": ["x"]}, "../_cluster"),
}


@pytest.mark.parametrize("name", WRONG)
async def test_wrong_requests_are_refused_with_what_is_wrong(make_stack: MakeStack, name: str) -> None:
    body, told = WRONG[name]
    stack = await make_stack(ScriptedIndex())

    status, answer = await retrieve(stack, body)

    assert status == 400
    assert told in answer["error"]["reason"]
    assert stack.cluster.received == []


async def test_an_index_without_a_profile_is_named(make_stack: MakeStack) -> None:
    stack = await make_stack(ScriptedIndex(profile=None))

    status, answer = await retrieve(stack, {"index": "docs", "queries": ["x"]})

    assert status == 400
    assert answer["error"]["reason"] == "index docs: the bridge has not enriched the index"
