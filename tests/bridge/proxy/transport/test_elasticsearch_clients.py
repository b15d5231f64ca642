"""Elasticsearch's clients see what they need, and sniffing clients stay at the proxy."""

import gzip
import json

import pytest
from multidict import CIMultiDict

from bridge.proxy.transport.elasticsearch_clients import (
    CLAIMED_VERSION,
    answer_headers,
    introduced,
    translated,
    wants_types,
    with_address,
    with_plain_media_types,
    with_types,
)
from tests.bridge.proxy.conftest import MakeStack
from tests.bridge.proxy.scripted_index import QUERY, ScriptedIndex
from tests.fake_cluster import Received, Reply, reply_json

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


PITS = {
    "POST /docs/_search/point_in_time": {"pit_id": "a+/=", "_shards": {"total": 1}, "creation_time": 1},
    "DELETE /_search/point_in_time": {"pits": [{"pit_id": "a+/=", "successful": True}]},
    "POST /docs/_field_caps": {"indices": ["docs"], "fields": {}},
}


def opensearch(request: Received) -> Reply:
    return reply_json(PITS.get(f"{request.method} {request.path}", {"error": "no handler found"}))


@pytest.mark.case("P60")
@pytest.mark.parametrize(
    ("method", "target", "body", "sent", "sent_body", "answer"),
    [
        (
            "POST",
            "/docs/_pit?keep_alive=1m&allow_partial_search_results=true",
            b"",
            "/docs/_search/point_in_time?keep_alive=1m&allow_partial_pit_creation=true",
            b"",
            {"id": "a+/=", "_shards": {"total": 1}},
        ),
        (
            "DELETE",
            "/_pit",
            b'{"id":"a+/="}',
            "/_search/point_in_time",
            b'{"pit_id":["a+/="]}',
            {"succeeded": True, "num_freed": 1},
        ),
        (
            "POST",
            "/docs/_field_caps?ignore_unavailable=true",
            b'{"fields":["title","n.*"],"index_filter":{"term":{"n":1}}}',
            "/docs/_field_caps?ignore_unavailable=true&fields=title,n.*",
            b'{"index_filter":{"term":{"n":1}}}',
            PITS["POST /docs/_field_caps"],
        ),
        (
            "POST",
            "/docs/_field_caps",
            b'{"fields":"*"}',
            "/docs/_field_caps?fields=*",
            b"",
            PITS["POST /docs/_field_caps"],
        ),
    ],
    ids=["open", "close", "fields", "all_fields"],
)
async def test_what_opensearch_writes_differently_is_translated_both_ways(
    make_stack: MakeStack, method: str, target: str, body: bytes, sent: str, sent_body: bytes, answer: object
) -> None:
    stack = await make_stack(opensearch, es_compat=True)
    headers = {"Accept": OWN_JSON, "Content-Type": OWN_JSON, "Accept-Encoding": "gzip"}

    async with stack.client.request(
        method, stack.proxy.url + target, data=body or None, headers=headers
    ) as translated_answer:
        assert json.loads(gzip.decompress(await translated_answer.read())) == answer
        assert translated_answer.headers["Content-Type"] == OWN_JSON

    [request] = stack.cluster.received
    assert (request.method, request.target, request.body, request.complete) == (method, sent, sent_body, True)


@pytest.mark.case("P60")
@pytest.mark.parametrize(
    ("method", "target", "body"),
    [
        ("DELETE", "/_pit", b"no json"),
        ("DELETE", "/_pit", b"{}"),
        ("GET", "/docs/_field_caps?fields=n", b""),
        ("POST", "/docs/_field_caps?fields=n", b'{"index_filter":{}}'),
        ("GET", "/docs/_pit", b""),
    ],
)
def test_what_is_not_understood_or_alike_is_not_translated(method: str, target: str, body: bytes) -> None:
    assert translated(method, target, body) is None


@pytest.mark.case("P60")
async def test_an_error_in_place_of_a_point_in_time_stays(make_stack: MakeStack) -> None:
    error = {"error": {"type": "index_not_found_exception"}, "status": 404}
    stack = await make_stack(lambda _: reply_json(error, 404), es_compat=True)

    async with stack.client.post(f"{stack.proxy.url}/none/_pit?keep_alive=1m") as answer:
        assert (answer.status, await answer.json()) == (404, error)


@pytest.mark.case("P61")
@pytest.mark.parametrize(
    ("headers", "is_7"),
    [
        ({"X-Elastic-Client-Meta": "es=7.17.9,jv=17,t=7.17.9,hc=4.1.4"}, True),
        ({"User-Agent": "elasticsearch-java/7.17.9 (Java/17.0.5)"}, True),
        ({"Accept": "application/vnd.elasticsearch+json; compatible-with=7"}, True),
        ({"X-Elastic-Client-Meta": "es=8.11.0,jv=17,t=8.11.0"}, False),
        ({"Accept": OWN_JSON, "User-Agent": "elasticsearch-java/8.11.0"}, False),
        ({"X-Elastic-Client-Meta": "py=3.7,es=77.0"}, False),
        ({}, False),
    ],
)
def test_clients_of_version_7_are_known_by_what_they_say(headers: dict[str, str], is_7: bool) -> None:
    assert wants_types(CIMultiDict(headers)) is is_7


@pytest.mark.case("P61")
@pytest.mark.parametrize(
    ("body", "typed"),
    [
        (b'{"_index":"d","_id":"1","result":"created"}', b'{"_index":"d","_type":"_doc","_id":"1","result":"created"}'),
        (
            b'{"items":[{"index":{"_index":"d","_id":"1","_seq_no":12345678901234567890}}]}',
            b'{"items":[{"index":{"_index":"d","_type":"_doc","_id":"1","_seq_no":12345678901234567890}}]}',
        ),
        (
            b'{"_index":"d","_id":"1","_source":{ "_index":"x","_id":1.50}}',
            b'{"_index":"d","_type":"_doc","_id":"1","_source":{ "_index":"x","_id":1.50}}',
        ),
        (
            b'{"_index":"d","_id":"1","_source":{"t":"\\ud83d"}}',
            b'{"_index":"d","_type":"_doc","_id":"1","_source":{"t":"\\ud83d"}}',
        ),
        (b'{"_index":"d","_type":"old","_id":"1"}', b'{"_index":"d","_type":"old","_id":"1"}'),
        (b'{"error":{"_index":"d"}}', b'{"error":{"_index":"d"}}'),
        (b'no json "_index"', b'no json "_index"'),
        (b"", b""),
    ],
    ids=["written", "bulk", "source", "half_a_pair", "typed", "error", "no_json", "empty"],
)
def test_each_document_is_given_its_type_and_its_source_is_not_touched(body: bytes, typed: bytes) -> None:
    assert with_types(body) == typed


JAVA_7 = {"User-Agent": "elasticsearch-java/7.17.9 (Java/17.0.5)", "Content-Type": "application/json"}


@pytest.mark.case("P61")
@pytest.mark.parametrize(
    ("method", "target", "status"),
    [
        ("PUT", "/docs/_doc/1", 201),
        ("DELETE", "/docs/_doc/1", 404),
        ("POST", "/_bulk", 200),
        ("POST", "/docs/_update/1?refresh=true", 200),
        ("GET", "/docs/_doc/1", 200),
        ("POST", "/_search/scroll", 200),
    ],
)
async def test_javas_client_of_version_7_reads_the_answer_to_a_write(
    make_stack: MakeStack, method: str, target: str, status: int
) -> None:
    stack = await make_stack(lambda _: reply_json({"_index": "docs", "_id": "1"}, status), es_compat=True)

    async with stack.client.request(method, stack.proxy.url + target, headers=JAVA_7) as answer:
        assert (answer.status, (await answer.json()).get("_type")) == (status, "_doc")
    async with stack.client.request(method, stack.proxy.url + target, headers={"Accept": OWN_JSON}) as answer:
        assert "_type" not in await answer.json()


@pytest.mark.case("P61")
@pytest.mark.parametrize("more", [{}, {"sort": ["n"]}], ids=["upgraded", "passed"])
@pytest.mark.parametrize("packs", [False, True], ids=["plain", "gzip"])
async def test_hits_have_a_type_for_clients_of_version_7(
    make_stack: MakeStack, more: dict[str, object], packs: bool
) -> None:
    stack = await make_stack(ScriptedIndex(), es_compat=True)
    headers = {**JAVA_7, **({"Accept-Encoding": "gzip"} if packs else {})}

    async with stack.client.post(
        f"{stack.proxy.url}/docs/_search", data=json.dumps({**QUERY, **more}), headers=headers
    ) as answer:
        content = await answer.read()
    hits = json.loads(gzip.decompress(content) if packs else content)["hits"]["hits"]

    assert len(hits) == (3 if more else 5)
    assert {hit["_type"] for hit in hits} == {"_doc"}
