"""The bridge's own searches go out in the caller's name."""

import json
from typing import Any

import aiohttp
import msgspec
import pytest

from bridge.proxy.upgrade.cluster_client import AnswerMemory
from tests.bridge.proxy.conftest import MakeStack
from tests.bridge.proxy.scripted_index import PROFILE, QUERY, ScriptedIndex, kind_of_search
from tests.bridge.proxy.searching import ids, search
from tests.fake_cluster import Reply, fake_cluster


@pytest.mark.case("P23")
@pytest.mark.parametrize("source", [False, ["n"], {"excludes": ["title"]}])
async def test_reranked_text_is_fetched_apart_and_never_shown(make_stack: MakeStack, source: Any) -> None:
    stack = await make_stack(ScriptedIndex(titles={"d": "red shoe"}))

    _, mark, answer = await search(stack, {**QUERY, "_source": source})

    assert mark.startswith("hybrid+rerank")
    assert ids(answer)[0] == "d"
    shown = [json.loads(request.body) for request in stack.cluster.requests("_search")]
    assert [body["_source"] for body in shown if kind_of_search(body) == "shown"] == [source]
    assert all(("_source" in hit) is (source is not False) for hit in answer["hits"]["hits"])


@pytest.mark.case("P11")
async def test_every_leg_carries_the_callers_identity_and_no_other(make_stack: MakeStack) -> None:
    stack = await make_stack(ScriptedIndex(), profile_ttl_s=0)
    for caller in ("alice", "bob"):
        await search(
            stack, authorization=caller, cookie=f"session={caller}", x_opaque_id="42", securitytenant=f"of-{caller}"
        )

    half = len(stack.cluster.received) // 2
    for caller, requests in (("alice", stack.cluster.received[:half]), ("bob", stack.cluster.received[half:])):
        assert {request.path for request in requests} == {"/docs/_search", "/docs/_msearch", "/docs/_mapping"}
        assert {request.header("authorization") for request in requests} == {caller}
        assert {request.header("cookie") for request in requests} == {f"session={caller}"}
        assert {request.header("securitytenant") for request in requests} == {f"of-{caller}"}
        assert {request.header("x-opaque-id") for request in requests} == {"42"}


@pytest.mark.case("P33")
async def test_a_cluster_of_another_engine_is_asked_in_its_own_language_once_its_mapping_is_read(
    make_stack: MakeStack,
) -> None:
    index = ScriptedIndex()
    stack = await make_stack(index, profile_ttl_s=0)
    await search(stack, x_bridge="hybrid")

    # The index was copied to another engine, whose mapping says how its vectors are kept.
    index.profile = msgspec.structs.replace(PROFILE, vector_type="dense_vector")
    _, mark, _ = await search(stack, x_bridge="hybrid")

    assert mark.startswith("hybrid; took")
    asked = [request.body for request in stack.cluster.requests("_msearch")]
    assert [b'"query_vector"' in body for body in asked if b'"knn":{' in body] == [False, True]


def test_a_share_is_half_of_what_others_leave_at_most() -> None:
    memory = AnswerMemory(1_000)

    with memory.share() as first, memory.share() as second:
        assert first.fits(500)
        assert not first.fits(501)
        first.hold(500)
        assert first.fits(500), "its own bytes are no others'"
        assert second.fits(250)
        assert not second.fits(251)
        second.hold(900)
        assert memory.free == -400, "what is there already counts, whether it fits or not"
    assert memory.free == 1_000


@pytest.mark.case("P39")
@pytest.mark.parametrize(
    "headers", [(("content-length", "600"),), (("transfer-encoding", "chunked"),)], ids=["announced", "chunked"]
)
@pytest.mark.parametrize(("limit", "read"), [(1_200, True), (1_199, False)])
async def test_an_answer_is_read_as_far_as_it_fits(headers: tuple[tuple[str, str]], limit: int, read: bool) -> None:
    content = b"x" * 600
    body = b"258\r\n%s\r\n0\r\n\r\n" % content if "chunked" in headers[0] else content
    memory = AnswerMemory(limit)

    async with fake_cluster(lambda _: Reply(body=body, headers=headers)) as cluster, aiohttp.ClientSession() as client:
        with memory.share() as share:
            async with client.get(cluster.url) as answer:
                assert await share.read(answer) == (content if read else None)
            assert memory.held == (600 if read else 0)
    assert memory.held == 0
