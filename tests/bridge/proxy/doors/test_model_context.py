import asyncio
import json
from typing import Any

import pytest

from bridge.proxy.doors.model_context import (
    HEADER_MISMATCH,
    INVALID_PARAMS,
    INVALID_REQUEST,
    METHOD_NOT_FOUND,
    PARSE_ERROR,
    UNSUPPORTED_VERSION,
)
from bridge.proxy.server.routing import MAX_AT_DOORS
from tests.bridge.proxy.conftest import MakeStack, Stack
from tests.bridge.proxy.scripted_index import CALIBRATED, PROFILE, ScriptedIndex
from tests.fake_cluster import Reply

TITLES = {"d": "red shoe for the garden", "e": "red shoe for the garden!", "a": "a blue dress"}
NEWEST = "2026-07-28"
META = {
    "io.modelcontextprotocol/protocolVersion": NEWEST,
    "io.modelcontextprotocol/clientCapabilities": {},
}


async def post(stack: Stack, body: Any, **headers: str) -> tuple[int, Any, Any]:
    """Status, answer (None if it is empty) and headers; `_` in a header's name stands for `-`."""
    given = {"Content-Type": "application/json"} | {name.replace("_", "-"): value for name, value in headers.items()}
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    async with stack.client.post(f"{stack.proxy.admin_url}/_bridge/mcp", data=data, headers=given) as answer:
        read = await answer.read()
        return answer.status, json.loads(read) if read else None, answer.headers


async def exposition(stack: Stack) -> str:
    """The proxy's metrics."""
    async with stack.client.get(f"{stack.proxy.admin_url}/_bridge/metrics") as answer:
        return await answer.text()


def request(method: str, **params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": 7, "method": method, "params": params}


async def call(stack: Stack, tool: str, **arguments: Any) -> dict[str, Any]:
    """The result of a tool."""
    status, answer, _ = await post(stack, request("tools/call", name=tool, arguments=arguments))
    assert (status, answer["id"]) == (200, 7)
    result: dict[str, Any] = answer["result"]
    return result


@pytest.mark.parametrize(
    ("wanted", "agreed"),
    [("2025-03-26", "2025-03-26"), ("2025-06-18", "2025-06-18"), ("2031-01-01", "2025-11-25"), (None, "2025-11-25")],
    ids=["old", "newer", "unknown", "none"],
)
async def test_a_client_and_the_proxy_agree_on_a_revision(
    make_stack: MakeStack, wanted: str | None, agreed: str
) -> None:
    stack = await make_stack(ScriptedIndex())

    _, answer, headers = await post(stack, request("initialize", protocolVersion=wanted, capabilities={}))

    assert answer["result"]["protocolVersion"] == agreed
    assert answer["result"]["capabilities"] == {"tools": {}}
    assert "Mcp-Session-Id" not in headers


async def test_a_notification_is_accepted_and_a_ping_answered(make_stack: MakeStack) -> None:
    stack = await make_stack(ScriptedIndex())

    assert (await post(stack, {"jsonrpc": "2.0", "method": "notifications/initialized"}))[:2] == (202, None)
    assert (await post(stack, request("ping")))[1]["result"] == {"resultType": "complete"}


async def test_passages_come_with_their_source_and_without_repetition(make_stack: MakeStack) -> None:
    stack = await make_stack(ScriptedIndex(titles=TITLES))

    result = await call(stack, "passages", index="docs", question="red shoe")

    content = result["structuredContent"]
    assert json.loads(result["content"][0]["text"]) == content
    assert content["passages"][0] == {
        "index": "docs",
        "doc_id": "d",
        "score": 3.0,
        "start": 0,
        "end": 23,
        "text": "red shoe for the garden",
    }
    assert "e" not in [passage["doc_id"] for passage in content["passages"]]
    assert (content["near_duplicates"], content["degraded"]) == (1, [])


@pytest.mark.parametrize("tool", ["passages", "search"])
async def test_a_model_learns_how_probable_it_is_that_the_index_answers(make_stack: MakeStack, tool: str) -> None:
    for profile, confidence in ((CALIBRATED, pytest.approx(0.8808)), (PROFILE, None)):
        stack = await make_stack(ScriptedIndex(profile=profile))
        content = (await call(stack, tool, index="docs", question="red shoe"))["structuredContent"]
        assert content["confidence"] == confidence


async def test_a_cut_passage_ends_where_its_text_does(make_stack: MakeStack) -> None:
    title = "red shoe " * 40
    stack = await make_stack(ScriptedIndex(titles={"d": title}))

    content = (await call(stack, "passages", index="docs", question="red shoe", max_tokens=16))["structuredContent"]

    [passage] = content["passages"]
    assert passage["text"] == title[passage["start"] : passage["end"]]
    assert content["tokens"] <= 16
    assert content["beyond_budget"] > 0


async def test_documents_that_do_not_fit_are_named_without_their_fields(make_stack: MakeStack) -> None:
    stack = await make_stack(ScriptedIndex(titles={"d": "red shoe " * 100}))

    content = (await call(stack, "search", index="docs", question="red shoe", max_tokens=150))["structuredContent"]

    first, second, *_ = content["documents"]
    assert (first["doc_id"], first["source"]) == ("d", None)
    assert second["source"]["title"].startswith("title of")
    assert content["tokens"] <= 150


async def test_a_search_asks_for_the_fields_that_are_wanted_and_never_for_the_bridges_own(
    make_stack: MakeStack,
) -> None:
    stack = await make_stack(ScriptedIndex())

    await call(stack, "search", index="docs", question="red shoe", fields=["title"], filter={"term": {"n": 1}})

    shown = [json.loads(each.body) for each in stack.cluster.requests("_search") if b'"excludes"' in each.body]
    assert [each["_source"] for each in shown] == [{"includes": ["title"], "excludes": ["_neural"]}]
    assert all(b'{"term":{"n":1}}' in each.body for each in stack.cluster.requests("_msearch"))


async def test_everything_is_asked_in_the_callers_name_and_the_answer_says_what_was_done(
    make_stack: MakeStack,
) -> None:
    stack = await make_stack(ScriptedIndex())

    body = request("tools/call", name="passages", arguments={"index": "docs", "question": "red shoe"})
    _, _, headers = await post(stack, body, authorization="alice")

    assert {each.header("authorization") for each in stack.cluster.received} == {"alice"}
    assert headers["X-Bridge"].startswith("hybrid+rerank; took_ms=")


async def test_an_index_is_described_to_whoever_may_search_it(make_stack: MakeStack) -> None:
    counted = Reply(200, b'{"count":6}')
    stack = await make_stack(ScriptedIndex(faults={"_count": counted}))

    assert (await call(stack, "describe_index", index="docs"))["structuredContent"] == {
        "index": "docs",
        "documents": 6,
        "text_fields": ["title"],
        "enriched_with": ["predicted_queries", "vectors"],
        "scripts": [],
        "stages": ["lexical", "expansion", "vector", "hybrid", "smoothing", "rerank"],
    }

    forbidden = await make_stack(ScriptedIndex(faults={"_count": Reply(403, b"{}")}))
    assert (await call(forbidden, "describe_index", index="docs"))["isError"]


FAILING: dict[str, tuple[ScriptedIndex, dict[str, Any], str]] = {
    "no question": (ScriptedIndex(), {"index": "docs", "question": " "}, "question"),
    "unknown argument": (ScriptedIndex(), {"index": "docs", "question": "x", "top_k": 3}, "top_k"),
    "no such index": (ScriptedIndex(profile=None), {"index": "docs", "question": "x"}, "has not enriched"),
    "the cluster is away": (
        ScriptedIndex(faults={"_mapping": Reply(break_after=0)}),
        {"index": "docs", "question": "x"},
        "cannot be searched now",
    ),
}


@pytest.mark.parametrize("name", FAILING)
async def test_what_goes_wrong_with_a_tool_is_told_to_the_model(make_stack: MakeStack, name: str) -> None:
    index, arguments, told = FAILING[name]
    stack = await make_stack(index)

    result = await call(stack, "passages", **arguments)

    assert result["isError"]
    assert told in result["content"][0]["text"]


async def test_a_stage_that_fails_costs_no_passage(make_stack: MakeStack) -> None:
    async def no_sidecar(path: str, body: dict[str, Any]) -> Any:
        raise ConnectionError

    stack = await make_stack(ScriptedIndex(), no_sidecar)

    content = (await call(stack, "passages", index="docs", question="red shoe"))["structuredContent"]

    assert content["passages"]
    assert content["degraded"]


WRONG: dict[str, tuple[Any, int, int]] = {
    "no JSON": (b"{", 400, PARSE_ERROR),
    "a batch": ([request("ping")], 400, INVALID_REQUEST),
    "another protocol": ({"id": 7, "method": "ping"}, 400, INVALID_REQUEST),
    "an answer": ({"jsonrpc": "2.0", "id": 7, "result": {}}, 400, INVALID_REQUEST),
    "an unknown method": (request("resources/list"), 200, METHOD_NOT_FOUND),
    "an unknown tool": (request("tools/call", name="fetch"), 200, INVALID_PARAMS),
}


@pytest.mark.parametrize("name", WRONG)
async def test_wrong_messages_get_errors_of_the_protocol(make_stack: MakeStack, name: str) -> None:
    body, status, code = WRONG[name]
    stack = await make_stack(ScriptedIndex())

    answered = await post(stack, body)

    assert (answered[0], answered[1]["error"]["code"]) == (status, code)


def newest(method: str, *, meta: Any = META, **params: Any) -> dict[str, Any]:
    return request(method, _meta=meta, **params)


async def test_the_newest_revision_needs_no_handshake(make_stack: MakeStack) -> None:
    stack = await make_stack(ScriptedIndex())
    said = {"MCP_Protocol_Version": NEWEST}

    status, answer, _ = await post(stack, newest("server/discover"), Mcp_Method="server/discover", **said)
    assert (status, NEWEST in answer["result"]["supportedVersions"]) == (200, True)

    body = newest("tools/call", name="passages", arguments={"index": "docs", "question": "red shoe"})
    status, answer, _ = await post(stack, body, Mcp_Method="tools/call", Mcp_Name="passages", **said)
    assert (status, answer["result"]["resultType"], answer["result"]["isError"]) == (200, "complete", False)


OF_THE_NEWEST: dict[str, tuple[dict[str, Any], dict[str, str], int, int]] = {
    "another method in the header": (newest("tools/list"), {"Mcp_Method": "tools/call"}, 400, HEADER_MISMATCH),
    "no name in a header": (newest("tools/call", name="search"), {"Mcp_Method": "tools/call"}, 400, HEADER_MISMATCH),
    "no capabilities": (newest("tools/list", meta={}), {"Mcp_Method": "tools/list"}, 400, INVALID_PARAMS),
    "an unknown method": (newest("prompts/list"), {"Mcp_Method": "prompts/list"}, 404, METHOD_NOT_FOUND),
    "an unknown revision": (
        newest("tools/list"),
        {"Mcp_Method": "tools/list", "MCP_Protocol_Version": "2031-01-01"},
        400,
        UNSUPPORTED_VERSION,
    ),
}


@pytest.mark.parametrize("name", OF_THE_NEWEST)
async def test_of_the_newest_revision_headers_and_body_have_to_agree(make_stack: MakeStack, name: str) -> None:
    body, headers, status, code = OF_THE_NEWEST[name]
    stack = await make_stack(ScriptedIndex())

    answered = await post(stack, body, **{"MCP_Protocol_Version": NEWEST} | headers)

    assert (answered[0], answered[1]["error"]["code"]) == (status, code)


@pytest.mark.parametrize("origin", ["https://elsewhere.example", "http://localhost:9281", "null"])
async def test_a_page_in_a_browser_is_refused(make_stack: MakeStack, origin: str) -> None:
    stack = await make_stack(ScriptedIndex())

    status, answer, _ = await post(stack, request("tools/list"), Origin=origin)

    assert (status, answer["id"]) == (403, None)
    assert stack.cluster.received == []


@pytest.mark.parametrize("method", ["GET", "DELETE", "OPTIONS"])
async def test_there_is_neither_a_stream_nor_a_session(make_stack: MakeStack, method: str) -> None:
    stack = await make_stack(ScriptedIndex())

    async with stack.client.request(method, f"{stack.proxy.admin_url}/_bridge/mcp") as answer:
        assert (answer.status, answer.headers["Allow"]) == (405, "POST")


async def test_a_body_that_is_too_large_and_too_many_requests_are_refused(make_stack: MakeStack) -> None:
    stack = await make_stack(ScriptedIndex(faults={"_mapping": Reply(delay_s=60.0)}), max_search_body_bytes=500)
    body = request("tools/call", name="passages", arguments={"index": "docs", "question": "red shoe"})

    status, answer, _ = await post(stack, request("ping", padding="x" * 500))
    assert (status, answer["error"]["code"]) == (413, INVALID_REQUEST)

    waiting = [asyncio.create_task(post(stack, body)) for _ in range(MAX_AT_DOORS)]
    while f"bridge_proxy_requests_in_flight {MAX_AT_DOORS}.0" not in await exposition(stack):
        pass
    assert (await post(stack, body))[0] == 429
    for each in waiting:
        each.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)


async def test_requests_are_counted(make_stack: MakeStack) -> None:
    stack = await make_stack(ScriptedIndex())
    await call(stack, "passages", index="docs", question="red shoe")

    text = await exposition(stack)

    assert 'bridge_proxy_requests_total{code="200",decision="upgrade",route="mcp"} 1.0' in text
    assert 'bridge_proxy_stage_duration_seconds_count{stage="rerank"} 1.0' in text
