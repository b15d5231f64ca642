import asyncio
import json

import pytest

from tests.bridge.proxy.conftest import MakeStack
from tests.bridge.proxy.scripted_index import QUERY, ScriptedIndex


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
