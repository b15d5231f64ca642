"""The operators' listener shows what they need, and no secrets."""

import aiohttp
import pytest
from pydantic import SecretStr

from bridge.proxy.server.app import running
from bridge.settings import ClusterSettings, ProxySettings, Settings
from tests.bridge.proxy.conftest import MakeStack
from tests.bridge.proxy.scripted_index import QUERY, ScriptedIndex


@pytest.mark.case("P37")
async def test_the_configuration_shown_masks_secrets() -> None:
    settings = Settings(
        cluster=ClusterSettings(url="http://127.0.0.1:9", username="reader", password=SecretStr("hush")),
        proxy=ProxySettings(port=0, admin_port=0),
    )
    async with (
        running(settings) as proxy,
        aiohttp.ClientSession() as client,
        client.get(f"{proxy.admin_url}/_bridge/config") as answer,
    ):
        shown = await answer.text()

    assert '"username":"reader"' in shown
    assert "hush" not in shown


async def test_about_names_the_stages_that_a_search_may_ask_for(make_stack: MakeStack) -> None:
    stack = await make_stack(ScriptedIndex())

    async with stack.client.get(f"{stack.proxy.admin_url}/_bridge/about") as answer:
        about = await answer.json()
    for stage in about["stages"]:
        asked = {"x-bridge": stage}
        async with stack.client.post(f"{stack.proxy.url}/docs/_search", json=QUERY, headers=asked) as answer:
            assert answer.status == 200, (stage, await answer.text())
