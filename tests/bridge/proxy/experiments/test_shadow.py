import asyncio
import json

import pytest

from bridge.proxy.experiments.event_log import overlap, rank_biased_overlap
from tests.bridge.proxy.conftest import MakeStack
from tests.bridge.proxy.scripted_index import QUERY, ScriptedIndex

A, B, C, D = (("docs", name) for name in "abcd")


def test_overlap_counts_shared_documents() -> None:
    assert overlap([A, B], [B, A]) == 1.0
    assert overlap([A, B], [B, C]) == 0.5
    assert overlap([A], [A, B, C, D]) == 0.25


def test_rank_biased_overlap_weighs_the_first_ranks_most() -> None:
    assert rank_biased_overlap([A, B, C], [A, B, C]) == pytest.approx(1.0)
    assert rank_biased_overlap([A, B], [C, D]) == 0.0
    assert rank_biased_overlap([A, B, C], [A, C, B]) > rank_biased_overlap([A, B, C], [B, A, C]) > 0
    # At depth 1 they share nothing, at depth 2 both: 0.9 of 1 + 0.9.
    assert rank_biased_overlap([A, B], [B, A]) == pytest.approx(0.9 / 1.9)


@pytest.mark.case("P35")
async def test_shadow_answers_are_the_clusters_and_the_difference_is_told(make_stack: MakeStack) -> None:
    index = ScriptedIndex(titles={"d": "red shoe"})
    stack = await make_stack(index, mode="shadow")
    body = json.dumps(QUERY).encode()

    async with stack.client.post(
        f"{stack.proxy.url}/docs/_search", data=body, headers={"Content-Type": "application/json"}
    ) as answer:
        content = await answer.read()
        assert "X-Bridge" not in answer.headers
    async with asyncio.timeout(5):
        await stack.cluster.has_received(5)

    [own] = [request for request in stack.cluster.received if request.body == body]
    assert content == index(own).body
    metrics = ""
    async with asyncio.timeout(5):
        while "bridge_proxy_shadow_overlap_count 1.0" not in metrics:
            async with stack.client.get(f"{stack.proxy.admin_url}/_bridge/metrics") as answer:
                metrics = await answer.text()
    # a, b and c of five documents.
    assert 'bridge_proxy_shadow_overlap_bucket{le="0.5"} 0.0' in metrics
    assert 'bridge_proxy_shadow_overlap_bucket{le="0.6"} 1.0' in metrics
