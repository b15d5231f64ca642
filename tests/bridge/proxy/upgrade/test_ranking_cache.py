"""Rankings that serve once more, and when they must not."""

import asyncio
import json
from typing import Any

import msgspec
import pytest
from aiohttp import web

from tests.bridge.proxy.conftest import MakeStack, Stack
from tests.bridge.proxy.scripted_index import PROFILE, QUERY, ScriptedIndex
from tests.fake_cluster import kind_sidecar

LONG: dict[str, Any] = {"ranking_ttl_s": 3600}
ALICE = {"Authorization": "alice"}


async def search(
    stack: Stack, body: dict[str, Any] | None = None, *, stage: str = "rerank", headers: dict[str, str] | None = None
) -> tuple[str, list[str]]:
    """What took part, and the ids; alice asks unless `headers` tell of another."""
    given = {"Content-Type": "application/json", "x-bridge": stage, **ALICE, **(headers or {})}
    async with stack.client.post(
        f"{stack.proxy.url}/docs/_search", data=json.dumps(body or QUERY), headers=given
    ) as answer:
        assert answer.status == 200
        return answer.headers["X-Bridge"], [hit["_id"] for hit in (await answer.json())["hits"]["hits"]]


def rankings(stack: Stack) -> int:
    """How many were made; each asks for the expansion leg once."""
    return len([asked for asked in stack.cluster.requests("_msearch") if b"predicted_queries" in asked.body])


async def outcomes(stack: Stack) -> dict[str, float]:
    """What the metric counted."""
    async with stack.client.get(f"{stack.proxy.admin_url}/_bridge/metrics") as answer:
        lines = (await answer.text()).splitlines()
    counted = [line.split() for line in lines if line.startswith("bridge_proxy_ranking_cache_total{")]
    return {name.split('"')[1]: float(value) for name, value in counted}


async def test_the_same_question_of_the_same_caller_is_ranked_once(make_stack: MakeStack) -> None:
    stack = await make_stack(ScriptedIndex(titles={"d": "red shoe"}), **LONG)

    first, found = await search(stack)
    second, found_again = await search(stack, headers={"X-Opaque-Id": "another request"})

    assert rankings(stack) == 1
    assert found_again == found == ["d", "a", "e", "b", "c"]
    assert first.startswith("hybrid+rerank; took_ms")
    assert second.startswith("hybrid+rerank; kept; took_ms")
    assert await outcomes(stack) == {"miss": 1.0, "hit": 1.0}


@pytest.mark.case("P21")
async def test_further_pages_use_the_ranking_of_the_first(make_stack: MakeStack) -> None:
    stack = await make_stack(ScriptedIndex(), **LONG)
    _, whole = await search(stack)

    pages = [await search(stack, {**QUERY, "from": start, "size": 2}) for start in (0, 2, 4)]

    assert [doc_id for _, page in pages for doc_id in page] == whole
    assert rankings(stack) == 1


async def test_a_page_that_needed_no_reranking_does_not_serve_the_first(make_stack: MakeStack) -> None:
    stack = await make_stack(ScriptedIndex(titles={"d": "red shoe"}), **LONG)

    beyond, _ = await search(stack, {**QUERY, "from": PROFILE.rerank.depth, "size": 1})
    first, found = await search(stack)

    assert beyond.startswith("hybrid; ")
    assert first.startswith("hybrid+rerank; took_ms")
    assert found[0] == "d"


@pytest.mark.case("P11")
@pytest.mark.parametrize(
    "other",
    [
        {"Authorization": "bob"},
        {"Cookie": "session=bob"},
        {"securitytenant": "bobs"},
        {"opendistro_security_impersonate_as": "bob"},
        {"X-Forwarded-For": "203.0.113.7"},
        {"X-Unknown": "says who"},
        {"Authorization": "ApiKey os_2"},
        {"User-Agent": "bobs"},
        {"Baggage": "tenant=bob"},
    ],
    ids=lambda other: next(iter(other)),
)
async def test_no_ranking_crosses_callers(make_stack: MakeStack, other: dict[str, str]) -> None:
    stack = await make_stack(ScriptedIndex(), **LONG)
    await search(stack)

    mark, _ = await search(stack, headers=other)

    assert "kept" not in mark
    assert rankings(stack) == 2


CHANGES: dict[str, dict[str, Any]] = {
    "query": {"query": {"match": {"title": "red shoes"}}},
    "filter": {"query": {"bool": {"must": [QUERY["query"]], "filter": [{"term": {"n": 1}}]}}},
    "post_filter": {**QUERY, "post_filter": {"term": {"n": 1}}},
    "min_score": {**QUERY, "min_score": 0.5},
    "timeout": {**QUERY, "timeout": "1s"},
    "collapse": {**QUERY, "collapse": {"field": "brand"}},
}


async def test_pages_of_a_kept_ranking_repeat_no_group(make_stack: MakeStack) -> None:
    groups = dict.fromkeys("aceghi", "x") | dict.fromkeys("bd", "y") | dict.fromkeys("yz", "z")
    index = ScriptedIndex(own=list("abcdghiyz"), expanded=list("abcdghie"), groups=groups)
    stack = await make_stack(index, **LONG)
    collapsed = {**QUERY, "collapse": {"field": "brand"}, "size": 1}

    pages = [await search(stack, {**collapsed, "from": start}) for start in range(4)]

    assert rankings(stack) == 1
    assert [[groups[doc_id] for doc_id in found] for _, found in pages] == [["x"], ["y"], ["z"], []]
    assert all("kept" in mark for mark, _ in pages[1:])


@pytest.mark.parametrize("name", CHANGES)
async def test_another_question_is_ranked_anew(make_stack: MakeStack, name: str) -> None:
    stack = await make_stack(ScriptedIndex(), **LONG)
    await search(stack)

    mark, _ = await search(stack, CHANGES[name])

    assert "kept" not in mark


async def test_another_stage_or_profile_is_ranked_anew(make_stack: MakeStack) -> None:
    index = ScriptedIndex()
    stack = await make_stack(index, **LONG, profile_ttl_s=0)
    await search(stack)
    stage, _ = await search(stack, stage="hybrid")
    index.profile = msgspec.structs.replace(PROFILE, window=7)
    profile, _ = await search(stack)

    assert "kept" not in stage
    assert "kept" not in profile


@pytest.mark.case("S7")
async def test_what_the_application_wrote_is_seen_by_its_next_search(make_stack: MakeStack) -> None:
    index = ScriptedIndex()
    stack = await make_stack(index, **LONG)
    await search(stack)
    index.own, index.expanded = ("new", "a", "b", "c"), ("new", "a", "b", "c", "d")

    mark, found = await search(stack)

    assert "kept" not in mark
    assert "new" in found
    assert await outcomes(stack) == {"miss": 1.0, "changed": 1.0}


async def test_a_kept_ranking_shows_only_hits_that_the_cluster_gives_now(make_stack: MakeStack) -> None:
    index = ScriptedIndex()
    stack = await make_stack(index, **LONG)
    _, before = await search(stack)
    index.hidden = frozenset({"e"})

    mark, after = await search(stack)

    assert "kept" in mark
    assert after == [doc_id for doc_id in before if doc_id != "e"]


async def test_a_ranking_that_lacks_a_stage_is_not_kept(make_stack: MakeStack) -> None:
    broken = True

    async def sidecar(path: str, body: dict[str, Any]) -> web.Response:
        return web.Response(status=500) if broken and path == "/rerank" else await kind_sidecar(path, body)

    stack = await make_stack(ScriptedIndex(), sidecar, **LONG)
    degraded, _ = await search(stack)
    broken = False
    whole, _ = await search(stack)

    assert "rerank_unavailable" in degraded
    assert whole.startswith("hybrid+rerank; took_ms")


async def test_explanations_are_made_anew(make_stack: MakeStack) -> None:
    stack = await make_stack(ScriptedIndex(), **LONG)
    for _ in range(2):
        mark, _ = await search(stack, stage="rerank, explain")
        assert "kept" not in mark
    assert rankings(stack) == 2


@pytest.mark.parametrize("bounds", [{}, {"ranking_ttl_s": 0.001}, {**LONG, "ranking_cache_bytes": 10}])
async def test_rankings_are_kept_neither_by_default_nor_beyond_time_and_memory(
    make_stack: MakeStack, bounds: dict[str, Any]
) -> None:
    stack = await make_stack(ScriptedIndex(), **bounds)
    await search(stack)
    await asyncio.sleep(0.002)

    mark, _ = await search(stack)

    assert "kept" not in mark
    assert rankings(stack) == 2


async def test_searches_for_one_ranking_at_a_time_wait_for_the_first(make_stack: MakeStack) -> None:
    held = asyncio.Event()

    async def sidecar(path: str, body: dict[str, Any]) -> web.Response:
        await held.wait()
        return await kind_sidecar(path, body)

    stack = await make_stack(ScriptedIndex(), sidecar, **LONG, budget_ms=600_000)
    asking = [asyncio.create_task(search(stack)) for _ in range(5)]
    # The mapping, once or for each, and five times the application's own query: all have come.
    while len(stack.cluster.requests("/docs/_search")) < 5:  # noqa: ASYNC110 - the scripted cluster counts requests
        await asyncio.sleep(0.01)
    held.set()
    answers = await asyncio.gather(*asking)

    assert rankings(stack) == 1
    assert len([mark for mark, _ in answers if "kept" in mark]) == 4
    assert len({tuple(found) for _, found in answers}) == 1


async def test_the_first_of_them_may_leave(make_stack: MakeStack) -> None:
    held, embedding = asyncio.Event(), asyncio.Event()

    async def sidecar(path: str, body: dict[str, Any]) -> web.Response:
        embedding.set()
        await held.wait()
        return await kind_sidecar(path, body)

    stack = await make_stack(ScriptedIndex(), sidecar, **LONG, budget_ms=600_000)
    first = asyncio.create_task(search(stack))
    await embedding.wait()
    second = asyncio.create_task(search(stack))
    await stack.cluster.has_received(3)  # the mapping and two own queries
    first.cancel()
    held.set()

    mark, found = await second

    assert mark.startswith("hybrid+rerank")
    assert len(found) == 5
