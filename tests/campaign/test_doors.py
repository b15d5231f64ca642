"""Requests to the proxy's own endpoints, and the faults that their answers may have."""

import json
import random
from collections import Counter
from typing import Any

import pytest

from tests.campaign.doors import MCP, OPENAI, RETRIEVE, Shown, answer_faults, door_request, shown_faults, shown_in
from tests.campaign.grammar import Grammar
from tests.campaign.wire import NO_ANSWER, Answer, Request


def test_all_kinds_of_requests_come_whole_and_broken() -> None:
    chance = random.Random(3)
    kinds = Counter[str]()
    for _ in range(500):
        request, conditions = door_request(chance, Grammar(chance))
        kinds[request.target.decode().partition("?")[0].rpartition("/")[2]] += 1
        kinds["conditions"] += bool(conditions)
        kinds["not POST"] += request.method != "POST"
        try:
            kinds["JSON"] += isinstance(json.loads(request.body), dict)
        except ValueError:
            kinds["broken"] += 1
    assert min(kinds[name] for name in ("retrieve", "mcp", "search", "embeddings", "conditions", "not POST")) > 10
    assert kinds["JSON"] > kinds["broken"] > 10


def answer(tree: Any, status: int = 200, **headers: str) -> Answer:
    given = tuple((name.replace("_", "-"), value) for name, value in headers.items())
    return Answer(status, given, json.dumps(tree).encode())


@pytest.mark.parametrize(
    ("given", "faults"),
    [
        (answer({}), []),
        (answer({}, 429), []),
        (answer({}, 503), []),
        (Answer(202), []),
        (answer({}, 500), ["status 500"]),
        (answer({}, x_bridge="hybrid; degraded=internal_error"), ["mark internal_error"]),
        (Answer(200, (), b"<html>"), ["not JSON"]),
        (answer({"jsonrpc": "2.0", "error": {"code": -32603}}), ["an internal error"]),
        (answer({"error": {"code": "embedder_slow"}}), []),
        (Answer(NO_ANSWER, fault="late"), ["no answer: late"]),
    ],
    ids=["whole", "busy", "cluster", "empty", "500", "mark", "page", "rpc", "refused", "none"],
)
def test_what_no_answer_may_be_is_a_fault(given: Answer, faults: list[str]) -> None:
    assert answer_faults(given) == faults


def test_what_each_endpoint_shows_is_read() -> None:
    passage = {"index": "papers", "doc_id": "1", "start": 0, "end": 4, "text": "wing"}
    shown = Shown("papers", "1", 0, 4, "wing")
    page = {
        "object": "vector_store.search_results.page",
        "data": [
            {
                "file_id": "1",
                "attributes": {"index": "papers", "start": 0, "end": 4},
                "content": [{"type": "text", "text": "wing"}],
            }
        ],
    }
    document = {"index": "papers", "doc_id": "1", "source": {"title": "wing"}}
    for path, tree, expected in (
        (RETRIEVE, {"results": [{"passages": [passage]}]}, [shown]),
        (MCP, {"result": {"structuredContent": {"passages": [passage]}}}, [shown]),
        (
            MCP,
            {"result": {"structuredContent": {"documents": [document]}}},
            [Shown("papers", "1", source=document["source"])],
        ),
        (MCP, {"result": {"structuredContent": {"documents": 120}}}, []),
        (MCP, {"result": {"isError": True}}, []),
        (OPENAI, page, [shown]),
        (OPENAI, {"data": []}, []),
    ):
        assert shown_in(Request("POST", path.encode()), answer(tree)) == expected
    assert shown_in(Request("POST", RETRIEVE.encode()), answer({}, 400)) == []


def test_what_is_shown_must_be_what_the_node_shows() -> None:
    sources = {("papers", "1"): b'{"title": " wing ", "body": "flow"}'}
    shown = [
        Shown("papers", "1", 6, 10, "flow"),
        Shown("papers", "1", 5, 9, "flow"),
        Shown("papers", "2", 0, 4, "wing"),
        Shown("papers", "1", source={"title": "wing"}),
        Shown("papers", "1", source={"_neural": {}}),
        Shown("papers", "1"),
    ]
    assert list(shown_faults(shown, sources)) == [
        "a passage that its offsets do not cut",
        "a document that the conditions shut out",
        "_neural shows",
    ]
