import asyncio
import dataclasses
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from bridge.proxy.upgrade.multisearch import MAX_SEARCHES, Item, items, searched
from bridge.proxy.upgrade.planning import MAPPINGS_AT_ONCE, Searched
from bridge.proxy.upgrade.search import MAX_RANKED_AT_ONCE
from bridge.search.request import LeaveAlone
from tests.bridge.proxy.conftest import MakeStack, Stack
from tests.bridge.proxy.scripted_index import QUERY, ScriptedIndex
from tests.fake_cluster import Received, Reply, reply_json

SORTED = {**QUERY, "sort": ["n"]}


def lines(*searches: tuple[dict[str, Any], dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(line).encode() + b"\n" for search in searches for line in search)


def test_searches_are_told_apart_with_their_own_parameters() -> None:
    body = b'{"index":"a","routing":"r","ignore_unavailable":true}\n{"size":1}\n\n{"size":2}\n{"index":["b","c"]}\n{}\n'

    assert items(body, "typed_keys=true", expression="mine") == [
        Item("a", b'{"size":1}', "routing=r&ignore_unavailable=true"),
        Item("mine", b'{"size":2}', ""),
        Item("b,c", b"{}", ""),
    ]


@pytest.mark.case("P55", "P56")
@pytest.mark.parametrize(
    ("header", "parameters"),
    [
        ({"routing": None, "search_type": None, "ignore_unavailable": None, "preference": "p"}, "preference=p"),
        ({"expand_wildcards": ["open", "closed"]}, "expand_wildcards=open%2Cclosed"),
        ({"allow_no_indices": "false", "request_cache": True}, "allow_no_indices=false&request_cache=true"),
    ],
)
def test_a_header_line_is_read_as_the_cluster_reads_it(header: dict[str, object], parameters: str) -> None:
    assert items(lines((header, QUERY)), "", expression="docs") == [
        Item("docs", json.dumps(QUERY).encode(), parameters)
    ]


@pytest.mark.case("P55")
@pytest.mark.parametrize(
    ("header", "parameters"),
    [
        ('{"routing":12345678901234567890}', "routing=12345678901234567890"),
        ('{"routing":-7,"preference":"1.50"}', "routing=-7&preference=1.50"),
        # The cluster writes these in its own way.
        ('{"routing":1.50}', None),
        ('{"routing":1e3}', None),
        ('{"routing":{"a":1}}', None),
        ('{"routing":["a","b"]}', None),
        ('{"expand_wildcards":[1]}', None),
    ],
)
def test_a_value_that_the_cluster_writes_in_its_own_way_is_not_guessed(header: str, parameters: str | None) -> None:
    found = items(f"{header}\n{{}}\n".encode(), "", expression="docs")

    assert found == [Item("docs" if parameters else "", b"{}", parameters or "")]


@pytest.mark.case("P48")
@pytest.mark.parametrize(
    ("name", "expression"),
    [("Shop", "Shop"), ("läden", "l%C3%A4den"), ("a%2Fb+c@d", "a%252Fb%2Bc%40d"), (["a*", "-ab"], "a*,-ab"), (7, "")],
)
def test_names_in_header_lines_are_written_as_a_path_has_them(name: Any, expression: str) -> None:
    [item] = items(lines(({"index": name}, {})), "", expression="l%C3%A4den")  # type: ignore[misc]
    assert item == Item(expression, b"{}", "")


@pytest.mark.parametrize(
    ("body", "query_string", "reason"),
    [
        (b"{}\n{}", "", "malformed"),
        (b"{}\n", "", "malformed"),
        (b"", "", "malformed"),
        (b"[]\n{}\n", "", "malformed"),
        (b"{,}\n{}\n", "", "not_json"),
        (b"{}\n{}\n", "filter_path=took", "unknown_parameter"),
    ],
)
def test_what_cannot_be_told_apart_is_left_alone(body: bytes, query_string: str, reason: str) -> None:
    assert items(body, query_string, expression="x") == LeaveAlone(reason)


@pytest.mark.case("P43")
def test_more_searches_than_anybody_types_are_left_alone() -> None:
    body = b"{}\n{}\n" * (MAX_SEARCHES + 1)

    assert items(body, "", expression="x") == LeaveAlone("too_many_searches")
    assert searched(body, "", expression="x") == {Searched("")}


@pytest.mark.case("P47")
def test_parameters_of_the_url_count_unless_a_header_line_says_otherwise() -> None:
    body = lines(({"index": "a"}, QUERY), ({"index": "b", "ignore_unavailable": False, "routing": None}, QUERY))

    found = items(body, "ignore_unavailable=true&routing=r&typed_keys", expression="")

    assert isinstance(found, list)
    assert [item.query_string for item in found] == ["ignore_unavailable=true&routing=r", "ignore_unavailable=false"]
    assert searched(body, "ignore_unavailable=true", expression="") == {
        Searched("a", "ignore_unavailable=true"),
        Searched("b", "ignore_unavailable=false"),
    }


async def msearch(stack: Stack, body: bytes, target: str = "/_msearch") -> tuple[int, str, bytes]:
    async with stack.client.post(
        stack.proxy.url + target, data=body, headers={"Content-Type": "application/x-ndjson"}
    ) as answer:
        return answer.status, answer.headers.get("X-Bridge", ""), await answer.read()


async def test_each_search_is_upgraded_or_left_as_it_is(make_stack: MakeStack) -> None:
    stack = await make_stack(ScriptedIndex())
    body = lines(({"index": "docs"}, QUERY), ({"index": "docs"}, SORTED), ({}, QUERY), ({"index": "_all"}, QUERY))

    status, mark, answer = await msearch(stack, body)

    assert status == 200
    assert mark.startswith("upgraded=1/4; took_ms=")
    first, *others = json.loads(answer)["responses"]
    assert len(first["hits"]["hits"]) == 5
    assert all("_neural" not in hit["_source"] for hit in first["hits"]["hits"])
    assert [[hit["_id"] for hit in other["hits"]["hits"]] for other in others] == [["a", "b", "c"]] * 3
    assert all("_neural" not in hit["_source"] for other in others for hit in other["hits"]["hits"])
    assert body in [request.body for request in stack.cluster.received]


@pytest.mark.case("P26")
async def test_errors_stay_with_their_search_and_order_is_kept(make_stack: MakeStack) -> None:
    error = {"error": {"type": "index_not_found_exception"}, "status": 404}
    index = ScriptedIndex()
    stack = await make_stack(
        lambda request: (
            reply_json({"took": 1, "responses": [error, {"took": 1, "hits": {"hits": []}, "status": 200}]})
            if request.path == "/_msearch"
            else index(request)
        )
    )

    _, mark, answer = await msearch(stack, lines(({"index": "docs"}, QUERY), ({"index": "docs"}, QUERY)))

    assert mark.startswith("upgraded=2/2")
    failed, found = json.loads(answer)["responses"]
    assert failed == error
    assert len(found["hits"]["hits"]) == 5


@pytest.mark.case("P26")
async def test_a_thousand_searches_are_ranked_a_few_at_a_time(make_stack: MakeStack) -> None:
    stack = await make_stack(ScriptedIndex(), budget_ms=60_000)

    status, mark, answer = await msearch(stack, lines(*[({"index": "docs"}, QUERY)] * 1000))

    assert status == 200
    assert mark.startswith("upgraded=1000/1000; took_ms")
    assert len(json.loads(answer)["responses"]) == 1000
    # One connection for the own request, and one for each search that is being ranked.
    assert len({request.connection for request in stack.cluster.received}) <= 1 + MAX_RANKED_AT_ONCE


@pytest.mark.case("P54")
async def test_half_a_surrogate_pair_in_one_answer_costs_no_search_its_ranking(make_stack: MakeStack) -> None:
    stack = await make_stack(ScriptedIndex(titles={"a": "red \ud83d"}))

    _, mark, answer = await msearch(stack, lines(({"index": "docs"}, QUERY), ({"index": "docs"}, SORTED)))

    assert mark.startswith("upgraded=1/2; took_ms")
    upgraded, passed = json.loads(answer)["responses"]
    assert len(upgraded["hits"]["hits"]) == 5
    assert len(passed["hits"]["hits"]) == 3
    assert answer.count(b"red \\ud83d") == 2
    assert b"_neural" not in answer


async def test_a_msearch_that_only_passes_is_unchanged(make_stack: MakeStack) -> None:
    stack = await make_stack(ScriptedIndex(faults={"_msearch": Reply(body=b"as it is")}))

    _, mark, answer = await msearch(stack, lines(({}, SORTED)), "/docs/_msearch")

    assert (mark, answer) == ("pass; reason=sort", b"as it is")


async def test_a_refused_mapping_is_asked_for_once(make_stack: MakeStack) -> None:
    stack = await make_stack(ScriptedIndex(faults={"_mapping": Reply(403, b"{}")}))

    _, mark, _ = await msearch(stack, lines(*[({"index": "docs"}, QUERY)] * 20))

    assert mark == "pass; reason=mapping_unreadable"
    assert len(stack.cluster.requests("_mapping")) == 1


@pytest.mark.case("P42")
async def test_slow_mappings_cost_one_budget_together_and_are_remembered(make_stack: MakeStack) -> None:
    stack = await make_stack(
        ScriptedIndex(faults={"_mapping": Reply(delay_s=60.0), "_msearch": Reply(body=b"as it is")}),
        budget_ms=500,
        profile_ttl_s=600,
    )
    body = lines(*[({"index": f"docs-{number}"}, QUERY) for number in range(20)])

    answers = [await msearch(stack, body) for _ in range(2)]

    assert answers == [(200, "pass; reason=cluster_unavailable", b"as it is")] * 2
    # Only mappings that were read together were asked for: those left when the budget was gone never are.
    assert len(stack.cluster.requests("_mapping")) == MAPPINGS_AT_ONCE


@pytest.mark.case("P42")
async def test_the_applications_request_leaves_before_the_mappings_are_there(make_stack: MakeStack) -> None:
    stack = await make_stack(ScriptedIndex(faults={"_mapping": Reply(delay_s=3600.0)}), budget_ms=3_600_000)
    body = lines(*[({"index": f"docs-{number}"}, QUERY) for number in range(3)])

    asking = asyncio.create_task(msearch(stack, body))
    async with asyncio.timeout(60):
        await stack.cluster.has_received(4)
    asking.cancel()

    assert [request.body for request in stack.cluster.requests("_msearch")] == [body]


@pytest.mark.case("P42")
async def test_who_asks_for_many_slow_indices_takes_no_others_from_anybody(make_stack: MakeStack) -> None:
    slow = {f"/docs-{number}/_mapping" for number in range(20)}
    index = ScriptedIndex(faults={"_msearch": Reply(body=b"as it is")})

    def script(request: Received) -> Reply:
        reply = index(request)
        return dataclasses.replace(reply, delay_s=60.0) if request.path in slow else reply

    stack = await make_stack(script, budget_ms=500, profile_ttl_s=600)
    await msearch(stack, lines(*[({"index": f"docs-{number}"}, QUERY) for number in range(20)]))
    asked = {request.path for request in stack.cluster.requests("_mapping")}
    slow.clear()

    async def reason(path: str) -> str:
        headers = {"Authorization": "another", "Content-Type": "application/json"}
        target = stack.proxy.url + path.replace("_mapping", "_search")
        async with stack.client.post(target, data=json.dumps(QUERY), headers=headers) as answer:
            return answer.headers["X-Bridge"]

    others = [f"/docs-{number}/_mapping" for number in range(20) if f"/docs-{number}/_mapping" not in asked]
    assert len(asked) == MAPPINGS_AT_ONCE
    assert "cluster_unavailable" in await reason(next(iter(asked)))
    assert "cluster_unavailable" not in await reason(others[0])


@pytest.mark.case("P42")
async def test_the_time_of_an_upload_is_the_clients_own(make_stack: MakeStack) -> None:
    stack = await make_stack(ScriptedIndex(), budget_ms=1_000)

    async def slowly() -> AsyncIterator[bytes]:
        yield b'{"query":'
        await asyncio.sleep(1.2)  # longer than the budget
        yield b'{"match":{"title":"red shoe"}}}'

    headers = {"Content-Type": "application/json"}
    async with stack.client.post(f"{stack.proxy.url}/docs/_search", data=slowly(), headers=headers) as answer:
        assert answer.status == 200

    assert len(stack.cluster.requests("_mapping")) == 1
