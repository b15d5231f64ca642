"""The page's way through the operators' listener: what it lets through, as whom, and what it never does."""

import pytest

from tests.bridge.proxy.conftest import MakeStack
from tests.bridge.proxy.scripted_index import QUERY, ScriptedIndex
from tests.fake_cluster import Received, Reply, reply_json

SEARCH = "/_bridge/cluster/docs/_search"


async def test_a_search_of_the_page_is_answered_as_one_of_an_application(make_stack: MakeStack) -> None:
    stack = await make_stack(ScriptedIndex())

    async with stack.client.post(stack.proxy.admin_url + SEARCH, json=QUERY) as paged:
        by_page = await paged.json()
        assert paged.headers["X-Bridge"].startswith("hybrid+rerank")
    async with stack.client.post(f"{stack.proxy.url}/docs/_search", json=QUERY) as direct:
        by_application = await direct.json()

    assert by_page["hits"]["hits"] == by_application["hits"]["hits"] != []


async def test_only_the_viewers_own_credentials_reach_the_cluster(make_stack: MakeStack) -> None:
    stack = await make_stack(ScriptedIndex())
    sent = {"Authorization": "Basic dmlld2VyOnNlY3JldA==", "Cookie": "session=of-another-site", "X-Other": "1"}

    async with stack.client.post(stack.proxy.admin_url + SEARCH, json=QUERY, headers=sent) as answer:
        assert answer.status == 200

    assert stack.cluster.received
    for request in stack.cluster.received:
        assert request.header("authorization") == sent["Authorization"]
        assert request.header("cookie") is None
        assert request.header("x-other") is None


async def test_without_credentials_none_are_sent(make_stack: MakeStack) -> None:
    stack = await make_stack(ScriptedIndex())

    async with stack.client.post(stack.proxy.admin_url + SEARCH, json=QUERY) as answer:
        assert answer.status == 200

    assert {request.header("authorization") for request in stack.cluster.received} == {None}


async def test_the_browser_is_never_asked_to_keep_a_password(make_stack: MakeStack) -> None:
    def refuses(_: Received) -> Reply:
        asking = (("www-authenticate", 'Basic realm="cluster"'), ("set-cookie", "a=b"))
        return Reply(401, b'{"error":"who are you?"}', (*asking, ("content-type", "application/json")))

    stack = await make_stack(refuses)

    async with stack.client.post(stack.proxy.admin_url + SEARCH, json=QUERY) as answer:
        assert answer.status == 401
        assert await answer.json() == {"error": "who are you?"}
        assert not {"www-authenticate", "set-cookie"} & {name.lower() for name in answer.headers}


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("DELETE", "/docs"),
        ("POST", "/docs/_delete_by_query"),
        ("PUT", "/docs/_mapping"),
        ("POST", "/_search"),
        ("POST", "/_bulk"),
        ("GET", "/_cluster/settings"),
        ("GET", "/docs/_search"),
        ("POST", "/docs/_search/../_delete_by_query"),
        ("POST", "/docs%2f..%2f_all/_search/template"),
        ("GET", "/docs/../_nodes/_mapping"),
        ("GET", "/_all/_mapping"),
        ("GET", ""),
    ],
)
async def test_nothing_else_of_the_cluster_is_within_reach(make_stack: MakeStack, method: str, target: str) -> None:
    stack = await make_stack(lambda _: reply_json({}))

    received = await stack.raw(
        f"{method} /_bridge/cluster{target} HTTP/1.1\r\nhost: here\r\nconnection: close\r\n\r\n".encode(),
        port=stack.proxy.admin_port,
    )

    assert received.split(b" ", 2)[1] in (b"403", b"404"), received
    assert stack.cluster.received == []


@pytest.mark.parametrize("origin", ["https://elsewhere.example", "null", "http://127.0.0.1"])
async def test_other_sites_cannot_search_through_a_viewers_browser(make_stack: MakeStack, origin: str) -> None:
    stack = await make_stack(ScriptedIndex())

    async with stack.client.post(stack.proxy.admin_url + SEARCH, json=QUERY, headers={"Origin": origin}) as answer:
        assert answer.status == 403
    assert stack.cluster.received == []

    headers = {"Origin": stack.proxy.admin_url}
    async with stack.client.post(stack.proxy.admin_url + SEARCH, json=QUERY, headers=headers) as answer:
        assert answer.status == 200


@pytest.mark.parametrize("applications", [{"mode": "shadow"}, {"canary_percent": 0.0}])
async def test_the_page_compares_before_applications_are_served(
    make_stack: MakeStack, applications: dict[str, object]
) -> None:
    stack = await make_stack(ScriptedIndex(), **applications)

    async with stack.client.post(stack.proxy.admin_url + SEARCH, json=QUERY) as paged:
        assert paged.headers["X-Bridge"].startswith("hybrid+rerank")
    async with stack.client.post(f"{stack.proxy.url}/docs/_search", json=QUERY) as direct:
        assert not direct.headers.get("X-Bridge", "").startswith("hybrid")
