"""Searches of a real node that name several indices, or pass: what is upgraded, and what their answers leave out."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
import requests
from opensearchpy import OpenSearch

from bridge.node.node import EmbeddedNode
from bridge.settings import ClusterSettings
from tests.proxy_stack import ProxyStack, proxy_stack
from tests.servers import client, unused_index_name

DOCUMENTS = {
    "wing": ({"title": "wing pressure", "body": "supersonic flow over a wing", "n": 1}, ["plate heat"]),
    "shoe": ({"title": "red shoe", "body": "cheap red shoe for the garden", "n": 2}, []),
}
HEAT = {"query": {"match": {"title": "heat"}}}
EVERYTHING = {"query": {"match_all": {}}, "size": 100}


@pytest.fixture(scope="module")
def stack(node: EmbeddedNode, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProxyStack]:
    folder = tmp_path_factory.mktemp("models")
    more: dict[str, Any] = {"budget_ms": 60_000, "es_compat": True, "ranking_ttl_s": 3600}
    with proxy_stack(ClusterSettings(url=node.url), folder, **more) as running:
        yield running


@pytest.fixture(scope="module")
def name(node: EmbeddedNode, stack: ProxyStack) -> Iterator[str]:
    """`NAME-rich` is enriched, `NAME-plain` is not, `NAME-closed` is closed; the alias `NAME-all` has the open ones."""
    base = unused_index_name()
    settings = {"number_of_replicas": 0}
    with client(node.url) as direct:
        stack.fill(direct, f"{base}-rich", DOCUMENTS, settings=settings)
        direct.index(index=f"{base}-plain", id="plain", body={"title": "heat"}, refresh=True)
        direct.indices.create(index=f"{base}-closed", body={"settings": settings})
        direct.indices.close(index=f"{base}-closed")
        direct.indices.update_aliases(
            body={"actions": [{"add": {"indices": [f"{base}-rich", f"{base}-plain"], "alias": f"{base}-all"}}]}
        )
        yield base
        direct.indices.delete(index=f"{base}-*", params={"expand_wildcards": "all"})


def ask(url: str, target: str, body: bytes | dict[str, Any], **headers: str) -> requests.Response:
    merged = {"Content-Type": "application/json", **headers}
    sent = body if isinstance(body, bytes) else json.dumps(body).encode()
    return requests.post(url + target, data=sent, headers=merged, timeout=120)


@pytest.mark.case("P47")
@pytest.mark.parametrize(
    ("expression", "parameters"),
    [
        ("{0}-rich,{0}-missing", {"ignore_unavailable": "true"}),
        ("{0}-rich,{0}-closed", {"ignore_unavailable": "true"}),
        ("{0}-r*,{0}-closed", {"ignore_unavailable": "true", "expand_wildcards": "open,closed"}),
        ("{0}-rich,{0}-missing*", {"allow_no_indices": "true"}),
        ("{0}-ri*", {"expand_wildcards": "all"}),
    ],
)
def test_a_search_is_upgraded_for_the_indices_that_are_there(
    stack: ProxyStack, name: str, expression: str, parameters: dict[str, str]
) -> None:
    indices = expression.format(name)
    query = "&".join(f"{key}={value}" for key, value in parameters.items())
    header = json.dumps({"index": indices, **parameters}).encode()
    by_default = json.dumps({"index": indices}).encode()

    answers = [
        ask(stack.url, f"/{indices}/_search?{query}", HEAT),
        ask(stack.url, "/_msearch", header + b"\n" + json.dumps(HEAT).encode() + b"\n"),
        ask(stack.url, f"/_msearch?{query}", by_default + b"\n" + json.dumps(HEAT).encode() + b"\n"),
    ]

    for answer in answers:
        assert answer.headers["X-Bridge"].startswith("hybrid+rerank;")
        own = answer.json()
        assert own.get("responses", [own])[0]["hits"]["hits"][0]["_id"] == "wing"


@pytest.mark.case("P47")
@pytest.mark.parametrize("query", ["", "?ignore_unavailable=false", "?allow_no_indices=false"])
def test_an_index_that_is_missing_is_the_clusters_own_error(
    stack: ProxyStack, node: EmbeddedNode, name: str, query: str
) -> None:
    target = f"/{name}-rich,{name}-missing{'*' if 'allow' in query else ''}/_search{query}"
    through, direct = (ask(url, target, HEAT) for url in (stack.url, node.url))

    assert (through.status_code, through.json()) == (direct.status_code, direct.json())
    assert through.status_code == 404


@pytest.mark.case("P45")
@pytest.mark.parametrize(
    ("target", "body", "headers"),
    [
        ("/{0}-rich,{0}-plain/_search", EVERYTHING, {}),
        ("/{0}-all/_search", EVERYTHING, {}),
        ("/{0}-*/_search", EVERYTHING, {}),
        ("/{0}%2Drich/_search/?pretty=true&error_trace=true", EVERYTHING, {}),
        ("/%3C{0}-rich%3E/_search", EVERYTHING, {}),
        ("/_all/_search", EVERYTHING, {}),
        ("//_search", EVERYTHING, {}),
        ("/{0}-rich/_search", b'\xef\xbb\xbf/* comment */ {"query":{"match_all":{}}}', {}),
        ("/{0}-rich/_search", EVERYTHING, {"x-bridge": "lexical"}),
        ("/{0}-rich/_search", EVERYTHING, {"Accept-Encoding": "gzip, deflate"}),
        ("/{0}-rich/_search", EVERYTHING, {"Authorization": "AWS4-HMAC-SHA256 Credential=x"}),
        ("/_msearch?human&max_concurrent_searches=2", b'{"index":"{0}-rich"}\n{"query":{"match_all":{}}}\n', {}),
        (
            "/{0}-rich/_msearch/template?typed_keys=true",
            b'{}\n{"source":{"query":{"match_all":{}}},"params":{}}\n',
            {},
        ),
    ],
    ids=[
        *("plain_beside", "alias", "pattern", "encoded", "date_math", "all", "no_name", "comment"),
        *("lexical", "gzip", "signed"),
        *("several", "several_templates"),
    ],
)
def test_what_passes_is_the_nodes_answer_without_our_object(
    stack: ProxyStack, node: EmbeddedNode, name: str, target: str, body: Any, headers: dict[str, str]
) -> None:
    sent = body.replace(b"{0}", name.encode()) if isinstance(body, bytes) else body
    through, direct = (ask(url, target.format(name), sent, **headers) for url in (stack.url, node.url))

    assert through.headers["X-Bridge"].startswith("pass; reason=")
    own = direct.json()
    hits = [hit for each in own.get("responses", [own]) for hit in each["hits"]["hits"]]
    assert any("_neural" in hit["_source"] for hit in hits), "the node shows it"
    for hit in hits:
        hit["_source"].pop("_neural", None)
    assert untimed(through.json()) == untimed(own)


def untimed(answer: dict[str, Any]) -> dict[str, Any]:
    return {
        key: [untimed(each) for each in value] if key == "responses" else value
        for key, value in answer.items()
        if key != "took"
    }


@pytest.mark.case("P58")
@pytest.mark.parametrize(
    "demand",
    [
        lambda query: {"query": {"bool": {"must": [query], "filter": [{"term": {"shop": "a"}}]}}},
        lambda query: {"query": {"bool": {"must": [query], "must_not": [{"term": {"shop": "b"}}]}}},
        lambda query: {"query": query, "post_filter": {"term": {"shop": "a"}}},
    ],
    ids=["filter", "must_not", "post_filter"],
)
def test_a_kept_ranking_shows_no_document_that_meets_the_conditions_no_longer(
    stack: ProxyStack, opensearch: OpenSearch, fresh_index: str, demand: Any
) -> None:
    texts = {
        "own": ({"title": "wing", "body": "flow", "shop": "a"}, []),
        "predicted": ({"title": "plate", "body": "layer", "shop": "a"}, ["wing flow"]),
    }
    shop = {"shop": {"type": "keyword"}}
    stack.fill(opensearch, fresh_index, texts, settings={"number_of_replicas": 0}, properties=shop)
    # A score that does not depend on how many documents there are: else a change of any of them is noticed.
    body = demand({"constant_score": {"filter": {"match": {"title": "wing"}}}})

    def ids() -> tuple[bool, set[str]]:
        answer = ask(stack.url, f"/{fresh_index}/_search", body)
        return "kept" in answer.headers["X-Bridge"], {hit["_id"] for hit in answer.json()["hits"]["hits"]}

    assert ids() == (False, {"own", "predicted"})
    opensearch.update(index=fresh_index, id="predicted", body={"doc": {"shop": "b"}}, refresh=True)
    assert ids() == (True, {"own"})


@pytest.mark.case("P60")
@pytest.mark.parametrize("major", [8, 9])
def test_points_in_time_and_fields_of_elasticsearchs_clients_work(stack: ProxyStack, name: str, major: int) -> None:
    elasticsearch = pytest.importorskip(f"elasticsearch{major}")
    with elasticsearch.Elasticsearch(stack.url, max_retries=0, request_timeout=120) as through:
        opened = through.open_point_in_time(index=f"{name}-plain", keep_alive="1m")
        found = through.search(pit={"id": opened["id"], "keep_alive": "1m"}, query={"match_all": {}})
        assert [hit["_id"] for hit in found["hits"]["hits"]] == ["plain"]
        assert through.close_point_in_time(id=found["pit_id"]) == {"succeeded": True, "num_freed": 1}
        caps = through.field_caps(index=f"{name}-rich", fields=["title", "bo*"], index_filter={"match_all": {}})
        assert {"title", "body"} <= set(caps["fields"])


@pytest.mark.case("P61")
@pytest.mark.parametrize("agent", ["elasticsearch-java/7.17.9 (Java/17.0.5)", "opensearch-java/3"])
def test_javas_client_of_version_7_finds_the_type_of_what_it_wrote(
    stack: ProxyStack, fresh_index: str, agent: str
) -> None:
    java = {"User-Agent": agent}
    written = [
        ask(stack.url, f"/{fresh_index}/_doc/1?refresh=true", {"title": "x"}, **java).json(),
        ask(stack.url, "/_bulk", b'{"index":{"_index":"%b"}}\n{}\n' % fresh_index.encode(), **java).json(),
        ask(stack.url, f"/{fresh_index}/_update/1", {"doc": {"title": "y"}}, **java).json(),
        ask(stack.url, f"/{fresh_index}/_search", EVERYTHING, **java).json()["hits"]["hits"][0],
    ]
    written[1] = written[1]["items"][0]["index"]

    assert {each.get("_type") for each in written} == ({"_doc"} if "7.17" in agent else {None})
