"""Several nodes of one cluster behind one proxy."""

import asyncio
from collections.abc import AsyncIterator

import aiohttp
import pytest
from yarl import URL

from bridge.errors import SettingsError
from bridge.proxy.server.app import running
from bridge.proxy.transport import upstream
from bridge.proxy.transport.upstream import Nodes, Upstream
from bridge.settings import ClusterSettings, ProxySettings, Settings
from tests.fake_cluster import FakeCluster, Reply, fake_cluster
from tests.servers import free_port

OK = Reply(body=b'{"ok":true}')


def settings_for(url: str, *further: str) -> Settings:
    return Settings(cluster=ClusterSettings(url=url), proxy=ProxySettings(port=0, admin_port=0, further_nodes=further))


def targets(cluster: FakeCluster) -> list[str]:
    return [request.target for request in cluster.received]


def test_nodes_take_turns_and_those_away_come_last() -> None:
    nodes = Nodes(["http://a:1", "http://b:1", "http://c:1", "http://a:1/"])
    a, b, c = nodes.origins

    assert [nodes.in_turn() for _ in range(3)] == [[a, b, c], [b, c, a], [c, a, b]]
    nodes.lost(a)
    assert [nodes.in_turn() for _ in range(3)] == [[b, c, a], [b, c, a], [c, b, a]]
    assert nodes.away == [a]
    nodes.found(a)
    assert nodes.in_turn() == [a, b, c]


@pytest.mark.case("P17")
async def test_nothing_fails_while_one_node_is_away_not_even_an_upload() -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(10):
            yield b'{"index":{}}\n{}\n'

    async with fake_cluster(lambda _: OK) as here, aiohttp.ClientSession() as client:
        away = f"http://127.0.0.1:{free_port()}"
        async with running(settings_for(away, here.url)) as proxy:
            for i in range(4):
                async with client.post(f"{proxy.url}/_bulk?{i}", data=pieces()) as answer:
                    assert answer.status == 200

    assert targets(here) == [f"/_bulk?{i}" for i in range(4)]
    assert {request.body for request in here.received} == {b'{"index":{}}\n{}\n' * 10}


@pytest.mark.case("P17")
@pytest.mark.parametrize(
    ("method", "target", "status", "attempts"),
    [("GET", "/docs/_doc/1", 200, 2), ("POST", "/_bulk", 502, 1), ("GET", "/_search/scroll?scroll_id=x", 502, 1)],
)
async def test_only_reads_go_to_another_node_when_a_connection_breaks(
    method: str, target: str, status: int, attempts: int
) -> None:
    async with (
        fake_cluster(lambda _: Reply(break_after=0)) as broken,
        fake_cluster(lambda _: OK) as sound,
        running(settings_for(broken.url, sound.url)) as proxy,
        aiohttp.ClientSession() as client,
        client.request(method, f"{proxy.url}{target}") as answer,
    ):
        assert answer.status == status

    assert targets(broken) + targets(sound) == [target] * attempts


async def test_a_node_that_is_back_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstream, "PROBE_EVERY_S", 0.05)
    port = free_port()
    async with (
        fake_cluster(lambda _: OK) as here,
        running(settings_for(f"http://127.0.0.1:{port}", here.url)) as proxy,
        aiohttp.ClientSession() as client,
    ):

        async def ask() -> None:
            async with client.get(f"{proxy.url}/asked") as answer:
                assert answer.status == 200

        await ask()
        assert targets(here) == ["/asked"]
        async with fake_cluster(lambda _: OK, port=port) as back, asyncio.timeout(30):
            await back.has_received(1)
            while "/asked" not in targets(back):
                await ask()


@pytest.mark.parametrize(
    "url", ["ftp://127.0.0.1", "127.0.0.1:9200", "http://127.0.0.1:9200/prefix", "http://user:pw@127.0.0.1:9200"]
)
def test_an_address_that_cannot_be_used_is_refused_at_start(url: str) -> None:
    with pytest.raises(SettingsError, match=r"cluster\.url"):
        Upstream(ClusterSettings(url=url))


@pytest.mark.case("P57")
def test_an_address_of_ip_version_6_makes_whole_urls() -> None:
    assert str(upstream._url(URL("http://[::1]:9200"), "/docs/_search?q=a")) == "http://[::1]:9200/docs/_search?q=a"
