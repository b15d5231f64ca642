"""The operators' listener shows what they need, and no secrets."""

import aiohttp
import pytest
from pydantic import SecretStr

from bridge.proxy.server.app import running
from bridge.settings import ClusterSettings, ProxySettings, Settings
from tests.bridge.proxy.conftest import MakeStack
from tests.bridge.proxy.scripted_index import QUERY, ScriptedIndex
from tests.fake_cluster import Reply, fake_cluster


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
    assert about["companion_prefix"] == "neural-bridge."
    for stage in about["stages"]:
        asked = {"x-bridge": stage}
        async with stack.client.post(f"{stack.proxy.url}/docs/_search", json=QUERY, headers=asked) as answer:
            assert answer.status == 200, (stage, await answer.text())


@pytest.mark.case("S15")
@pytest.mark.parametrize(
    ("host", "is_known"),
    [
        ("evil.example", False),
        ("evil.example:9281", False),
        ("127.0.0.1.evil.example", False),
        ("localhost.evil.example", False),
        ("", False),
        ("localhost:1", True),
        ("LOCALHOST.", True),
        ("192.0.2.7:9281", True),
        ("[::1]:9281", True),
        ("bridge.internal:9281", True),
    ],
)
@pytest.mark.parametrize(
    "target", ["GET /_bridge/", "GET /_bridge/config", "POST /_bridge/cluster/docs/_search", "GET /x"]
)
async def test_a_foreign_name_is_refused_unless_it_is_listed(
    make_stack: MakeStack, target: str, host: str, is_known: bool
) -> None:
    stack = await make_stack(ScriptedIndex(), admin_names=("Bridge.internal",))
    request = f"{target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"

    answer = await stack.raw(request.encode(), port=stack.proxy.admin_port)

    assert (b"proxy.admin_names" not in answer) == is_known
    assert answer.startswith(b"HTTP/1.1 403") == (not is_known)


@pytest.mark.parametrize("status", [200, 503])
async def test_ready_tells_whether_rankings_are_degraded(status: int) -> None:
    """A proxy without sidecar answers searches, so it is ready; whoever wants more than that reads the body."""
    async with fake_cluster() as cluster, fake_cluster(lambda _: Reply(status)) as models:
        proxy = ProxySettings(port=0, admin_port=0, sidecar_url=models.url)
        async with (
            running(Settings(cluster=ClusterSettings(url=cluster.url), proxy=proxy)) as started,
            aiohttp.ClientSession() as client,
            client.get(f"{started.admin_url}/_bridge/ready") as answer,
        ):
            is_up = status == 200
            assert answer.status == 200
            assert await answer.json() == {"ready": True, "degraded": not is_up, "cluster": True, "sidecar": is_up}


@pytest.mark.case("S15")
@pytest.mark.parametrize("path", ["health", "ready", "metrics"])
async def test_probes_and_metrics_are_answered_by_any_name(make_stack: MakeStack, path: str) -> None:
    stack = await make_stack(ScriptedIndex())
    headers = {"Host": "proxy.monitoring.svc:9281"}

    async with stack.client.get(f"{stack.proxy.admin_url}/_bridge/{path}", headers=headers) as answer:
        assert answer.status == 200
