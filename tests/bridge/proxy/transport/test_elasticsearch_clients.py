"""Elasticsearch's clients see what they need, and sniffing clients stay at the proxy."""

import json

import pytest
from multidict import CIMultiDict

from bridge.proxy.transport.elasticsearch_clients import (
    CLAIMED_VERSION,
    answer_headers,
    introduced,
    with_address,
    with_plain_media_types,
)
from tests.bridge.proxy.conftest import MakeStack
from tests.fake_cluster import Reply, reply_json

OWN_JSON = "application/vnd.elasticsearch+json; compatible-with=8"


NODES = {
    "_nodes": {"total": 2},
    "nodes": {
        "a": {"name": "one", "http": {"publish_address": "10.0.0.1:9200", "bound_address": ["10.0.0.1:9200"]}},
        "b": {"name": "two", "http": {"publish_address": "b.example/10.0.0.2:9200", "max_content_length": 1.50}},
        "c": {"name": "three", "roles": []},
    },
}


INTRODUCTION = {"name": "n", "version": {"distribution": "opensearch", "number": "3.6.0"}, "tagline": "The Project"}


@pytest.mark.case("P29")
@pytest.mark.parametrize("target", ["/_nodes/http", "/_nodes/_all/http", "/_nodes/http?timeout=1s"])
async def test_sniffing_clients_are_given_the_proxys_own_address(make_stack: MakeStack, target: str) -> None:
    stack = await make_stack(lambda _: reply_json(NODES))

    async with stack.client.get(f"{stack.proxy.url}{target}") as answer:
        content = await answer.read()

    here = f"127.0.0.1:{stack.proxy.port}"
    nodes = json.loads(content)["nodes"]
    assert [node["http"]["publish_address"] for node in nodes.values() if "http" in node] == [here, here]
    assert nodes["a"]["http"]["bound_address"] == [here]
    assert (nodes["b"]["name"], nodes["c"]) == ("two", NODES["nodes"]["c"])  # type: ignore[index]
    assert b'"max_content_length":1.5' in content


@pytest.mark.case("P29")
def test_only_the_addresses_change() -> None:
    bound = b'[\n      "[::1]:9200", "127.0.0.1:9200"\n    ]'
    pretty = (
        b'{\n  "n" : 1.10,\n  "http" : {\n    "bound_address" : ' + bound + b',\n    "publish_address" : "a:1"\n  }\n}'
    )

    changed = pretty.replace(bound, b'["b:2"]').replace(b"a:1", b"b:2")
    assert with_address(pretty, "b:2") == changed
    assert with_address(b'{"_nodes":{"total":1.0}}', "b:2") == b'{"_nodes":{"total":1.0}}'


@pytest.mark.case("P29")
@pytest.mark.parametrize(
    ("target", "script", "keep"),
    [
        ("/_nodes/stats", lambda _: reply_json(NODES), True),
        ("/_nodes/http", lambda _: reply_json(NODES), False),
        ("/_nodes/http", lambda _: Reply(403, b'{"nodes":{"a":{"http":{}}}}'), True),
        ("/_nodes/http?format=yaml", lambda _: Reply(body=b"---\nnodes: {}\n"), True),
    ],
)
async def test_other_answers_about_nodes_stay_as_they_are(
    make_stack: MakeStack, target: str, script: object, keep: bool
) -> None:
    assert callable(script)
    stack = await make_stack(script, keep_sniffing_clients=keep)

    async with stack.client.get(f"{stack.proxy.url}{target}") as answer:
        assert await answer.read() == script(None).body


@pytest.mark.case("P31")
async def test_elasticsearchs_media_types_are_translated_both_ways(make_stack: MakeStack) -> None:
    stack = await make_stack(lambda _: reply_json({}), es_compat=True)

    async with stack.client.put(
        f"{stack.proxy.url}/docs/_doc/1", data=b"{}", headers={"Accept": OWN_JSON, "Content-Type": OWN_JSON}
    ) as answer:
        assert answer.headers["Content-Type"] == OWN_JSON
        assert answer.headers["X-Elastic-Product"] == "Elasticsearch"

    [request] = stack.cluster.received
    assert (request.header("accept"), request.header("content-type")) == ("application/json", "application/json")


@pytest.mark.case("P31")
async def test_without_the_setting_elasticsearchs_clients_pass_as_they_are(make_stack: MakeStack) -> None:
    stack = await make_stack(lambda _: reply_json(INTRODUCTION))

    async with stack.client.get(f"{stack.proxy.url}/", headers={"Accept": OWN_JSON}) as answer:
        assert await answer.json() == INTRODUCTION
        assert "X-Elastic-Product" not in answer.headers

    assert stack.cluster.received[-1].header("accept") == OWN_JSON


@pytest.mark.case("P31")
def test_the_introduction_claims_what_clients_ask_for() -> None:
    told = json.loads(introduced(json.dumps(INTRODUCTION).encode()))

    assert told["version"] == {"number": CLAIMED_VERSION, "build_flavor": "default"}
    assert (told["name"], told["tagline"]) == ("n", "You Know, for Search")
    for other in (b"[]", b"no json", b'{"error":1}'):
        assert introduced(other) == other


@pytest.mark.parametrize(
    ("given", "plain"),
    [
        (OWN_JSON, "application/json"),
        ("application/vnd.elasticsearch+x-ndjson;compatible-with=9", "application/x-ndjson"),
        (f"{OWN_JSON},text/plain", "application/json,text/plain"),
        ("application/json", "application/json"),
    ],
)
def test_media_types_have_plain_names(given: str, plain: str) -> None:
    assert with_plain_media_types(CIMultiDict({"accept": given, "X-Other": given})) == CIMultiDict(
        {"accept": plain, "X-Other": given}
    )


def test_an_answer_of_another_type_keeps_it() -> None:
    assert "Content-Type" not in answer_headers(f"{OWN_JSON},text/plain", "text/plain; charset=UTF-8")
