"""The bridge's own searches go out in the caller's name."""

import json
from typing import Any

import msgspec
import pytest

from tests.bridge.proxy.conftest import MakeStack
from tests.bridge.proxy.scripted_index import PROFILE, QUERY, ScriptedIndex, kind_of_search
from tests.bridge.proxy.searching import ids, search


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
