import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import pytest

from bridge.text import text_digest
from tests.bridge.proxy.conftest import MakeStack, Stack
from tests.bridge.proxy.scripted_index import PROFILE, ScriptedIndex
from tests.bridge.proxy.upgrade.test_companion import IndexWithCompanion
from tests.fake_cluster import Received, Reply, reply_json

QUERIES = {"a": ["red shoes", "shoes for summer"], "b": ["what are red shoes", "red shoes"], "c": ["boil water"]}


def in_place(
    queries: Mapping[str, Sequence[str]] = QUERIES, *, fault: Reply | None = None
) -> Callable[[Received], Reply]:
    """An index whose documents have these predicted queries, all of which are found."""

    def script(request: Received) -> Reply:
        if request.path != "/docs/_search":
            return ScriptedIndex()(request)
        hits = [
            {"_index": "docs", "_id": key, "_source": {"_neural": {"predicted_queries": each}}}
            for key, each in queries.items()
        ]
        return fault or reply_json({"hits": {"hits": hits}})

    return script


def beside(*, shown: Sequence[str], changed: Sequence[str] = ()) -> Callable[[Received], Reply]:
    """An index that shows these documents to the caller, and a companion that has entries of all."""

    def entry(key: str) -> dict[str, Any]:
        title = "another" if key in changed else f"title of {key}"
        fields = {"_neural.stamp": [f"recipe.{text_digest({'title': title})}"]}
        source = {"_neural": {"predicted_queries": QUERIES[key]}}
        return {"_index": "neural-bridge.docs", "_id": key, "fields": fields, "_source": source}

    def script(request: Received) -> Reply:
        if request.path == "/neural-bridge.docs/_search":
            return reply_json({"hits": {"hits": [entry(key) for key in QUERIES]}})
        if request.path == "/docs/_search":
            hits = [{"_index": "docs", "_id": key, "_source": {"title": f"title of {key}"}} for key in shown]
            return reply_json({"hits": {"hits": hits}})
        return IndexWithCompanion()(request)

    return script


async def suggest(stack: Stack, method: str = "GET", body: Any = None, **parameters: str) -> tuple[int, Any]:
    """Status and answer."""
    url = f"{stack.proxy.admin_url}/_bridge/suggest"
    data = None if body is None else json.dumps(body)
    headers = {"authorization": "alice"}
    async with stack.client.request(method, url, params=parameters, data=data, headers=headers) as answer:
        return answer.status, await answer.json()


def texts(answer: Any) -> list[str]:
    return [each["text"] for each in answer["suggestions"]]


async def test_predicted_queries_complete_what_is_typed(make_stack: MakeStack) -> None:
    stack = await make_stack(in_place())

    status, answer = await suggest(stack, index="docs", prefix="red sh")
    _, posted = await suggest(stack, "POST", {"index": "docs", "prefix": "red sh", "size": 1})
    _, limited = await suggest(stack, index="docs", prefix="red sh", size="1")

    assert status == 200
    assert answer["suggestions"] == [
        {"text": "red shoes", "index": "docs", "doc_id": "a"},
        {"text": "what are red shoes", "index": "docs", "doc_id": "b"},
    ]
    assert texts(posted) == texts(limited) == ["red shoes"]
    assert {each.header("authorization") for each in stack.cluster.requests("/docs/_search")} == {"alice"}


async def test_nothing_is_suggested_before_anything_is_typed(make_stack: MakeStack) -> None:
    stack = await make_stack(in_place())

    assert (await suggest(stack, index="docs", prefix=" "))[1]["suggestions"] == []
    assert stack.cluster.requests("/docs/_search") == []


async def test_a_document_suggests_what_it_answers_if_the_caller_may_see_it_and_it_has_not_changed(
    make_stack: MakeStack,
) -> None:
    everything = await make_stack(beside(shown="abc"))
    hidden = await make_stack(beside(shown="bc"))
    changed = await make_stack(beside(shown="abc", changed="b"))
    nothing = await make_stack(beside(shown=""))

    found = [(await suggest(stack, index="docs", prefix="red"))[1] for stack in (everything, hidden, changed, nothing)]

    assert [texts(each) for each in found] == [["red shoes", "what are red shoes"]] * 2 + [["red shoes"], []]
    assert [each["suggestions"][0]["doc_id"] for each in found[:3]] == ["a", "b", "a"]
    assert found[0]["suggestions"][0]["index"] == "docs"
    [admitting] = everything.cluster.requests("/docs/_search")
    assert admitting.header("authorization") == "alice"
    [asking] = everything.cluster.requests("/neural-bridge.docs/_search")
    assert asking.header("authorization") is None


WRONG: dict[str, tuple[dict[str, str], str]] = {
    "no index": ({"prefix": "red"}, "index"),
    "no prefix": ({"index": "docs"}, "prefix"),
    "a long prefix": ({"index": "docs", "prefix": "x" * 201}, "200"),
    "too many": ({"index": "docs", "prefix": "red", "size": "51"}, "size"),
    "none": ({"index": "docs", "prefix": "red", "size": "0"}, "size"),
    "no number": ({"index": "docs", "prefix": "red", "size": "ten"}, "size"),
    "unknown": ({"index": "docs", "prefix": "red", "fuzzy": "true"}, "fuzzy"),
    "all indices": ({"index": "_all", "prefix": "red"}, "_all"),
}


@pytest.mark.parametrize("name", WRONG)
async def test_wrong_requests_are_refused_with_what_is_wrong(make_stack: MakeStack, name: str) -> None:
    parameters, told = WRONG[name]
    stack = await make_stack(in_place())

    status, answer = await suggest(stack, **parameters)

    assert status == 400
    assert told in answer["error"]["reason"]
    assert stack.cluster.received == []


async def test_a_body_that_is_no_json_is_refused(make_stack: MakeStack) -> None:
    stack = await make_stack(in_place())

    async with stack.client.post(f"{stack.proxy.admin_url}/_bridge/suggest", data=b"{") as answer:
        assert answer.status == 400
        assert "no JSON" in (await answer.json())["error"]["reason"]
    async with stack.client.put(f"{stack.proxy.admin_url}/_bridge/suggest", data=b"{}") as answer:
        assert (answer.status, answer.headers["Allow"]) == (405, "GET, POST")


async def test_an_index_without_predicted_queries_is_named(make_stack: MakeStack) -> None:
    stack = await make_stack(ScriptedIndex(profile=msgspec.structs.replace(PROFILE, generator=None)))

    status, answer = await suggest(stack, index="docs", prefix="red")

    assert status == 400
    assert "index docs: its documents have no predicted queries" in answer["error"]["reason"]


@pytest.mark.parametrize(
    ("fault", "status", "kind"),
    [
        (Reply(403, b"{}"), 403, "security_exception"),
        (Reply(503, b"{}"), 503, "cluster_unavailable_exception"),
        (Reply(break_after=0), 503, "cluster_unavailable_exception"),
        (Reply(delay_s=60.0), 503, "cluster_unavailable_exception"),
    ],
    ids=["forbidden", "down", "broken off", "slow"],
)
async def test_what_the_cluster_does_not_answer_is_told(
    make_stack: MakeStack, fault: Reply, status: int, kind: str
) -> None:
    stack = await make_stack(in_place(fault=fault), budget_ms=1000)

    answered, answer = await suggest(stack, index="docs", prefix="red")

    assert (answered, answer["error"]["type"]) == (status, kind)
