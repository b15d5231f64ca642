"""The proxy before a real node: searches upgraded, everything else as it would be without the proxy."""

import base64
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opensearchpy import AsyncOpenSearch, NotFoundError, OpenSearch, RequestError

from bridge.cli import main
from bridge.node.node import EmbeddedNode
from bridge.profile import PassageSettings, RerankSettings
from bridge.search.filter_path import filtered
from bridge.search.request import names_any
from bridge.settings import ClusterSettings
from bridge.text import enriched_text
from tests.proxy_stack import NESTED, ProxyStack, proxy_stack
from tests.servers import client, unused_index_name

DOCUMENTS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "wing": (
        {"title": "wing pressure", "body": "supersonic flow over a wing", "kind": "paper", "n": 1},
        ["plate heat"],
    ),
    "plate": ({"title": "flat plate", "body": "boundary layer on a plate", "kind": "paper", "n": 2}, ["cheap wing"]),
    "shock": ({"title": "shock layer", "body": "supersonic shock over a cylinder", "kind": "note", "n": 3}, []),
    "shoe": ({"title": "red shoe", "body": "cheap red shoe for the garden", "kind": "ad", "n": 4}, ["blue dress"]),
    "dress": ({"title": "blue dress", "body": "a dress and a shoe", "kind": "ad", "n": 5}, []),
    "file": ({"title": "read file", "body": "open a file and read a line", "kind": "note", "n": 6}, ["copy folder"]),
    "folder": ({"title": "copy folder", "body": "copy a folder path", "kind": "note", "n": 7}, []),
} | {
    f"many-{i}": ({"title": f"wing {i}", "body": "flow " * (i % 5) + "wing", "kind": "many", "n": i}, [])
    for i in range(30)
}
HIDDEN = {"term": {"kind": "ad"}}
PROPERTIES = {"kind": {"type": "keyword"}, "n": {"type": "integer"}}


@pytest.fixture(scope="module")
def stack(node: EmbeddedNode, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProxyStack]:
    with proxy_stack(ClusterSettings(url=node.url), tmp_path_factory.mktemp("models"), budget_ms=60_000) as running:
        yield running


@pytest.fixture(scope="module")
def through(stack: ProxyStack) -> Iterator[OpenSearch]:
    """A client that searches through the proxy."""
    with client(stack.url) as through_proxy:
        yield through_proxy


@pytest.fixture(scope="module", params=["single", "nested"])
def index(node: EmbeddedNode, stack: ProxyStack, request: pytest.FixtureRequest) -> Iterator[str]:
    """An enriched index, once for each layout of vectors."""
    name = unused_index_name()
    with client(node.url) as direct:
        stack.fill(
            direct,
            name,
            DOCUMENTS,
            properties=PROPERTIES,
            settings={"number_of_shards": 2, "number_of_replicas": 0},
            passages=NESTED if request.param == "nested" else PassageSettings(),
            rerank=RerankSettings(depth=10),
            window=20,
        )
        yield name
        direct.indices.delete(index=name)


def match(words: str, **more: Any) -> dict[str, Any]:
    return {"query": {"multi_match": {"query": words, "fields": ["title", "body"]}}, **more}


def ids(answer: dict[str, Any]) -> list[str]:
    return [hit["_id"] for hit in answer["hits"]["hits"]]


def test_documents_are_found_by_predicted_queries_and_by_vectors(through: OpenSearch, index: str) -> None:
    body = match("blue dress")

    found = {
        stage: ids(through.search(index=index, body=body, headers={"x-bridge": stage}))
        for stage in ("off", "expansion", "vector", "hybrid", "cascade", "rerank")
    }

    assert found["off"] == ["dress"]
    assert found["expansion"] == ["dress", "shoe"]
    assert {found[stage][0] for stage in ("vector", "hybrid", "cascade", "rerank")} == {"dress"}
    assert len(found["vector"]) > 2
    assert {"dress", "shoe"} <= set(found["hybrid"])


@pytest.mark.parametrize("stage", ["expansion", "vector", "hybrid", "cascade", "rerank"])
@pytest.mark.parametrize(
    "body",
    [
        {"query": {"bool": {"must": [match("wing flow")["query"]], "filter": [{"term": {"kind": "paper"}}]}}},
        {
            "query": {
                "bool": {"must": match("wing flow")["query"], "must_not": {"terms": {"kind": ["many", "ad", "note"]}}}
            }
        },
        match("wing flow", post_filter={"term": {"kind": "paper"}}),
        {
            "query": {
                "function_score": {
                    "query": {"bool": {"must": [match("wing flow")["query"], {"range": {"n": {"lte": 2}}}]}},
                    "functions": [{"field_value_factor": {"field": "n"}}],
                }
            },
            "post_filter": {"term": {"kind": "paper"}},
        },
        {
            "query": {
                "bool": {
                    "should": [{"match": {"title": "wing flow"}}, {"match": {"body": "wing flow"}}],
                    "minimum_should_match": 1,
                    "filter": {"bool": {"must": [{"term": {"kind": "paper"}}, {"range": {"n": {"gte": 1}}}]}},
                }
            }
        },
    ],
    ids=["filter", "must_not", "post_filter", "function_score", "should"],
)
def test_what_the_filters_exclude_never_enters(
    through: OpenSearch, index: str, stage: str, body: dict[str, Any]
) -> None:
    answer = through.search(index=index, body=body | {"size": 50}, headers={"x-bridge": stage})

    assert {hit["_source"]["kind"] for hit in answer["hits"]["hits"]} == {"paper"}
    assert set(ids(answer)) == {"wing", "plate"}


@pytest.mark.parametrize(
    "query",
    [
        {"match": {"title": "wing"}},
        {"match": {"body": {"query": "supersonic flow", "operator": "and", "fuzziness": "AUTO"}}},
        {"multi_match": {"query": "wing flow", "type": "most_fields", "fuzziness": "AUTO", "operator": "OR"}},
        {"multi_match": {"query": "wing flow", "type": "cross_fields", "fields": ["title^2", "body"]}},
        {"multi_match": {"query": "wing flow", "type": "bool_prefix", "fields": ["title", "body"]}},
        {"combined_fields": {"query": "wing flow", "fields": ["title", "body"]}},
        {"query_string": {"query": "wing flow", "fields": ["title", "body"]}},
        {"simple_query_string": {"query": "wing flow", "fields": ["title^3", "body"], "default_operator": "and"}},
        {"dis_max": {"queries": [{"match": {"title": "wing"}}, {"match": {"body": "wing"}}], "tie_breaker": 0.5}},
        {"constant_score": {"filter": {"match": {"title": "wing"}}}},
        {"boosting": {"positive": {"match": {"title": "wing"}}, "negative": {"term": {"n": 3}}, "negative_boost": 0.1}},
        {"bool": {"must": [{"match": {"title": "wing"}}], "should": [{"match_phrase": {"body": "wing"}}]}},
    ],
    ids=lambda query: next(iter(query)),
)
def test_every_query_that_is_understood_is_answered_by_the_cluster(
    through: OpenSearch, stack: ProxyStack, index: str, query: dict[str, Any]
) -> None:
    answered = requests.post(f"{stack.url}/{index}/_search", json={"query": query}, timeout=120)

    assert answered.status_code == 200, answered.text
    assert answered.headers["X-Bridge"].startswith("hybrid+rerank; took_ms"), answered.headers
    direct = through.search(index=index, body={"query": query}, headers={"x-bridge": "off"})
    assert answered.json()["hits"]["total"] == direct["hits"]["total"]


@pytest.mark.case("P21")
@pytest.mark.parametrize("stage", ["expansion", "hybrid", "cascade", "rerank"])
def test_pages_neither_repeat_nor_skip(through: OpenSearch, index: str, stage: str) -> None:
    def page(start: int, size: int) -> list[str]:
        body = match("wing flow", **{"from": start, "size": size})
        return ids(through.search(index=index, body=body, headers={"x-bridge": stage}))

    whole = page(0, 60)
    pages = [doc_id for start in range(0, 60, 4) for doc_id in page(start, 4)]

    assert pages == whole
    assert len(whole) == len(set(whole))
    direct = through.search(index=index, body=match("wing flow", size=60), headers={"x-bridge": "off"})
    assert set(ids(direct)) <= set(whole)


@pytest.mark.case("P22")
def test_aggregations_suggestions_and_totals_are_those_of_a_direct_search(through: OpenSearch, index: str) -> None:
    body = match(
        "wing flow",
        aggs={"kinds": {"terms": {"field": "kind"}}},
        suggest={"s": {"text": "wng", "term": {"field": "title"}}},
        track_total_hits=5,
        profile=True,
        size=3,
    )

    upgraded = through.search(index=index, body=body, params={"typed_keys": "true"})
    direct = through.search(index=index, body=body, params={"typed_keys": "true"}, headers={"x-bridge": "off"})

    for part in ("aggregations", "suggest", "_shards"):
        assert upgraded[part] == direct[part]
    assert upgraded["hits"]["total"] == direct["hits"]["total"] == {"value": 5, "relation": "gte"}
    assert upgraded["profile"]["shards"]


def test_hits_are_shown_as_the_application_asks(through: OpenSearch, index: str) -> None:
    body = match(
        "blue dress",
        _source=["title"],
        fields=["n"],
        docvalue_fields=["kind"],
        highlight={"fields": {"title": {}, "body": {}}},
        version=True,
        seq_no_primary_term=True,
        script_fields={"twice": {"script": "doc['n'].value * 2"}},
    )

    hits = {hit["_id"]: hit for hit in through.search(index=index, body=body)["hits"]["hits"]}

    # The expansion leg alone found the shoe: its presentation was fetched apart.
    shoe, dress = hits["shoe"], hits["dress"]
    assert shoe["_source"] == {"title": "red shoe"}
    assert shoe["fields"] == {"n": [4], "kind": ["ad"], "twice": [8]}
    assert shoe["_version"] == 1
    assert "_seq_no" in shoe
    assert dress["highlight"]["title"] == ["<em>blue</em> <em>dress</em>"]
    assert shoe.keys() - {"highlight"} == dress.keys() - {"highlight"}


def test_explained_hits_of_long_documents_tell_their_nearest_passage(
    node: EmbeddedNode, stack: ProxyStack, fresh_index: str
) -> None:
    documents: dict[str, tuple[dict[str, Any], list[str]]] = {
        "long": ({"title": "cat dog bird fish", "body": "horse cow sheep goat. red shoe for the garden"}, []),
        "short": ({"title": "blue dress", "body": "dress"}, []),
    }
    with client(node.url) as direct:
        stack.fill(direct, fresh_index, documents, passages=NESTED)

    answered = requests.post(
        f"{stack.url}/{fresh_index}/_search", json=match("red shoe"), headers={"x-bridge": "explain"}, timeout=120
    )

    first = answered.json()["hits"]["hits"][0]
    assert answered.headers["X-Bridge"].startswith("hybrid+rerank; took")
    assert first["_id"] == "long"
    text = "cat dog bird fish. horse cow sheep goat. red shoe for the garden"
    start = text.index("red")
    assert first["_bridge"]["passage"] == {"start": start, "end": len(text), "text": text[start:]}
    assert first["_bridge"]["rerank_score"] == 2.0
    assert "inner_hits" not in first


@pytest.mark.parametrize(
    "wanted",
    [
        "hits.hits._id",
        "hits.total,hits.hits._source.title",
        "**.title",
        "hits.*.va*,hits.t*",
        "gone",
        "-took,-hits.hits._source.*,-hits.hits._score",
        "hits.hits,-hits.hits._source,-**._score",
    ],
)
def test_filter_path_keeps_what_the_cluster_keeps(node: EmbeddedNode, index: str, wanted: str) -> None:
    url = f"{node.url}/{index}/_search"
    whole, parts = (
        requests.post(url, json=match("wing flow"), params=parameters, timeout=120)
        for parameters in ({}, {"filter_path": wanted})
    )

    assert json.loads(filtered(whole.content, wanted)) == parts.json()


def test_filter_path_is_honoured_in_upgraded_answers(stack: ProxyStack, index: str) -> None:
    answered = requests.post(
        f"{stack.url}/{index}/_search?filter_path=hits.hits._id&size=2", json=match("blue dress"), timeout=120
    )

    assert answered.headers["X-Bridge"].startswith("hybrid+rerank")
    assert answered.json() == {"hits": {"hits": [{"_id": "dress"}, {"_id": "shoe"}]}}


def test_a_search_that_passes_shows_documents_as_they_were_written(
    node: EmbeddedNode, stack: ProxyStack, index: str
) -> None:
    body = match("wing", sort=["n"], size=3, aggs={"first": {"top_hits": {"size": 1}}})

    through, direct = (requests.post(f"{url}/{index}/_search", json=body, timeout=120) for url in (stack.url, node.url))

    assert through.headers["X-Bridge"] == "pass; reason=sort"
    assert "_neural" not in through.text
    assert direct.text.count('"_neural"') == 4
    assert ids(through.json()) == ids(direct.json())


@pytest.mark.case("P2")
def test_a_search_template_is_upgraded(stack: ProxyStack, index: str) -> None:
    template = {"source": {"query": {"match": {"title": "{{words}}"}}, "size": 2}, "params": {"words": "blue dress"}}

    answered = requests.post(f"{stack.url}/{index}/_search/template", json=template, timeout=120)

    assert answered.headers["X-Bridge"].startswith("hybrid+rerank; took_ms")
    assert ids(answered.json()) == ["dress", "shoe"]


@pytest.mark.case("P64")
def test_a_template_replaces_what_the_url_says_of_a_search(stack: ProxyStack, node: EmbeddedNode, index: str) -> None:
    template = {"source": {"query": {"match": {"title": "{{words}}"}}, "size": 2}, "params": {"words": "blue dress"}}
    target = f"/{index}/_search/template?size=1&from=1&_source=false&explain=true&filter_path=hits.hits"

    through, direct = (
        requests.post(url + target, json=template, headers={"x-bridge": "expansion"}, timeout=120).json()
        for url in (stack.url, node.url)
    )

    members = [{tuple(sorted(hit)) for hit in answer["hits"]["hits"]} for answer in (through, direct)]
    assert members == [{("_id", "_index", "_score", "_source")}] * 2
    assert len(through["hits"]["hits"]) == 2


def test_explained_hits_tell_which_predicted_queries_match(stack: ProxyStack, index: str) -> None:
    answered = requests.post(
        f"{stack.url}/{index}/_search",
        json=match("cheap dress", explain=True),
        headers={"x-bridge": "hybrid"},
        timeout=120,
    )

    hits = {hit["_id"]: hit for hit in answered.json()["hits"]["hits"]}
    assert "degraded" not in answered.headers["X-Bridge"]
    assert hits["plate"]["_bridge"]["predicted_queries"] == ["cheap wing"]
    assert hits["shoe"]["_bridge"]["predicted_queries"] == ["blue dress"]
    assert all("_explanation" in hit for hit in hits.values())


def test_the_total_counts_the_union_where_that_is_asked_for(stack: ProxyStack, index: str) -> None:
    answers = [
        requests.post(
            f"{stack.url}/{index}/_search",
            json=match("blue dress", size=50),
            headers={"x-bridge": control},
            timeout=120,
        ).json()
        for control in ("hybrid", "hybrid, union")
    ]

    assert ids(answers[0]) == ids(answers[1])
    assert answers[0]["hits"]["total"]["value"] == 1
    assert answers[1]["hits"]["total"] == {"value": len(ids(answers[1])), "relation": "eq"}


@pytest.mark.parametrize("min_score", [None, 0.1])
def test_facets_count_the_union_where_that_is_asked_for(
    stack: ProxyStack, through: OpenSearch, index: str, min_score: float | None
) -> None:
    aggregated = match("blue dress", size=50, aggs={"kinds": {"terms": {"field": "kind"}}})
    aggregated |= {} if min_score is None else {"min_score": min_score}
    params = {"typed_keys": "true"}
    plain = through.search(index=index, body=aggregated, params=params, headers={"x-bridge": "hybrid"})
    answer = through.search(index=index, body=aggregated, params=params, headers={"x-bridge": "hybrid, facets"})

    assert answer["aggregations"] == plain["aggregations"]
    assert ids(answer) == ids(plain)
    counted = {each["key"]: each["doc_count"] for each in answer["_bridge"]["aggregations"]["sterms#kinds"]["buckets"]}
    assert counted == Counter(hit["_source"]["kind"] for hit in answer["hits"]["hits"])
    assert sum(counted.values()) > answer["hits"]["total"]["value"] or min_score is not None


def test_indices_that_were_enriched_alike_are_searched_together(
    node: EmbeddedNode, stack: ProxyStack, fresh_index: str
) -> None:
    halves = [dict(list(DOCUMENTS.items())[:4]), dict(list(DOCUMENTS.items())[4:7])]
    with client(node.url) as direct:
        for number, documents in enumerate(halves):
            stack.fill(direct, f"{fresh_index}-{number}", documents, properties=PROPERTIES)
    try:
        for expression in (f"{fresh_index}-*", f"{fresh_index}-0,{fresh_index}-1"):
            answered = requests.post(f"{stack.url}/{expression}/_search", json=match("blue dress"), timeout=120)
            assert answered.headers["X-Bridge"].startswith("hybrid+rerank; took_ms"), expression
            assert ids(answered.json())[:2] == ["dress", "shoe"]
    finally:
        with client(node.url) as direct:
            direct.indices.delete(index=f"{fresh_index}-*")


def test_searches_on_all_fields_leave_out_an_object_whose_name_begins_with_an_underscore(
    node: EmbeddedNode, stack: ProxyStack, fresh_index: str
) -> None:
    everywhere = {"query": {"multi_match": {"query": "plate heat"}}}
    documents = {doc_id: DOCUMENTS[doc_id] for doc_id in ("wing", "shoe")}
    with client(node.url) as direct:
        stack.fill(direct, fresh_index, documents, properties=PROPERTIES, object_field="_neural")
        found = ids(direct.search(index=fresh_index, body=everywhere))

    upgraded = requests.post(
        f"{stack.url}/{fresh_index}/_search", json=everywhere, headers={"x-bridge": "expansion"}, timeout=120
    )

    assert found == []
    assert upgraded.headers["X-Bridge"].startswith("expansion; took_ms")
    assert ids(upgraded.json()) == ["wing"]
    assert upgraded.json()["hits"]["total"]["value"] == 0
    assert "_neural" not in upgraded.text


def test_an_operator_says_which_searches_are_left_alone(
    node: EmbeddedNode, tmp_path: Path, fresh_index: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def rules(*options: str) -> dict[str, Any]:
        with pytest.raises(SystemExit) as ended:
            main(["index", "rules", fresh_index, "--cluster", node.url, "--json", *options])
        assert ended.value.code == 0
        printed = capsys.readouterr().out
        # The servers of this process print log lines around it.
        shown, _ = json.JSONDecoder().raw_decode(printed[printed.index("{\n") :])
        held: dict[str, Any] = shown["rules"]
        return held

    with proxy_stack(ClusterSettings(url=node.url), tmp_path, budget_ms=60_000, profile_ttl_s=0) as stack:
        with client(node.url) as direct:
            stack.fill(direct, fresh_index, {"shoe": DOCUMENTS["shoe"]})
        asked = match('"red shoe"')
        marks = []
        more = ("--identifiers", "upgrade", "--scripts", "Latin", "--confident-lead", "3")
        for options in ((), ("--quoted", "upgrade"), ("--quoted", "leave", *more)):
            held = rules(*options)
            marks.append(
                requests.post(f"{stack.url}/{fresh_index}/_search", json=asked, timeout=120).headers["X-Bridge"]
            )

    assert [mark.partition("; took")[0] for mark in marks] == [
        "pass; reason=quoted",
        "hybrid+rerank",
        "pass; reason=quoted",
    ]
    assert held == {
        "leave_quoted": True,
        "leave_identifiers": False,
        "leave_sorted_ties": True,
        "scripts": ["latin"],
        "confident_lead": 3.0,
        "boosts": 1.0,
        "diversity": 0.0,
        "sentences": False,
        "repair": False,
    }


def test_passages_are_retrieved_for_several_questions(stack: ProxyStack, index: str) -> None:
    asked = {
        "index": index,
        "queries": ["blue dress", "supersonic flow"],
        "size": 2,
        "filter": {"range": {"n": {"lte": 5}}},
    }

    answer = requests.post(f"{stack.admin_url}/_bridge/retrieve", json=asked, timeout=120).json()

    first, second = answer["results"]
    assert [passage["doc_id"] for passage in first["passages"]] == ["dress", "shoe"]
    assert "supersonic flow" in second["passages"][0]["text"]
    for passage in (*first["passages"], *second["passages"]):
        document = DOCUMENTS[passage["doc_id"]][0]
        text = enriched_text({"title": document["title"], "body": document["body"]})
        assert passage["text"] == text[passage["start"] : passage["end"]]


def test_total_as_a_number_is_honoured(through: OpenSearch, index: str) -> None:
    answer = through.search(index=index, body=match("blue dress"), params={"rest_total_hits_as_int": "true"})

    assert answer["hits"]["total"] == 1
    assert len(ids(answer)) > 1


def test_words_in_the_url_are_understood(stack: ProxyStack, index: str) -> None:
    answered = requests.get(
        f"{stack.url}/{index}/_search?q=blue+dress&df=title&size=2&_source=title&pretty", timeout=120
    )

    assert answered.headers["X-Bridge"].startswith("hybrid+rerank")
    assert ids(answered.json()) == ["dress", "shoe"]
    assert "\n" in answered.text


def test_an_alias_and_routing_are_honoured(node: EmbeddedNode, stack: ProxyStack, index: str) -> None:
    with client(node.url) as direct:
        direct.indices.put_alias(index=index, name=f"{index}-alias")

    answered = requests.post(
        f"{stack.url}/{index}-alias/_search?routing=wing&preference=mine", json=match("wing flow", size=50), timeout=120
    )

    assert answered.headers["X-Bridge"].startswith("hybrid+rerank; took")
    shard = requests.post(
        f"{node.url}/{index}/_search?routing=wing", json={"size": 100, "query": {"match_all": {}}}, timeout=120
    )
    assert set(ids(answered.json())) <= set(ids(shard.json()))


@pytest.mark.case("P16")
def test_errors_are_the_clusters_own(through: OpenSearch, stack: ProxyStack, node: EmbeddedNode, index: str) -> None:
    body = match("wing", highlight={"fields": {"title": {"type": "no such type"}}})

    with pytest.raises(RequestError):
        through.search(index=index, body=body)
    upgraded = requests.post(f"{stack.url}/{index}/_search", json=body, timeout=120)
    direct = requests.post(f"{node.url}/{index}/_search", json=body, timeout=120)
    assert (upgraded.status_code, upgraded.content) == (direct.status_code, direct.content)
    with pytest.raises(NotFoundError):
        through.search(index="no-such-index", body=match("wing"))


@pytest.mark.case("P38")
def test_headers_that_the_node_would_not_read_are_refused_and_nobody_waits(
    stack: ProxyStack, node: EmbeddedNode, index: str
) -> None:
    told = requests.get(f"{node.url}/_cluster/settings?include_defaults=true&flat_settings=true", timeout=120).json()
    size = told["defaults"]["http.max_header_size"]
    taken = int(size.removesuffix("kb")) * 1024 if size.endswith("kb") else int(size.removesuffix("b"))

    def status(n_bytes: int) -> int:
        lines = {f"X-{i:02}": "v" * 988 for i in range(n_bytes // 994)}
        return requests.post(
            f"{stack.url}/{index}/_search", json=match("blue dress"), headers=lines, timeout=120
        ).status_code

    assert [status(n_bytes) for n_bytes in (taken - 1_700, taken + 1_000)] == [200, 431]
    assert {status(0) for _ in range(4)} == {200}, "no connection to the node is stuck"


@pytest.mark.case("P24")
def test_numbers_and_escapes_come_back_byte_for_byte(node: EmbeddedNode, stack: ProxyStack, fresh_index: str) -> None:
    source = (
        '{ "title":"wing","body" : "flow","big":12345678901234567890123,"exact":1.10000000000000000001,'
        '"one":1.0,"escaped":"\\u00e9\\n","nested":{"b":[1, 2.50 ,{}]} '
    )
    with client(node.url) as direct:
        stack.fill(direct, fresh_index, {}, properties={"big": {"enabled": False, "type": "object"}})
        requests.put(f"{node.url}/{fresh_index}/_mapping", json={"dynamic": False}, timeout=120).raise_for_status()
        requests.put(
            f"{node.url}/{fresh_index}/_doc/1?refresh",
            data=source.replace('"big":12345678901234567890123', '"big2":12345678901234567890123').encode()
            + b',"_neural":{"stamp":"s"}}',
            headers={"Content-Type": "application/json"},
            timeout=120,
        ).raise_for_status()

    answered = requests.post(f"{stack.url}/{fresh_index}/_search", json=match("wing"), timeout=120)

    assert answered.headers["X-Bridge"].startswith("hybrid+rerank")
    expected = source.replace('"big":', '"big2":').encode() + b"}"
    assert b'"_source":' + expected in answered.content


async def test_the_asynchronous_client_works(stack: ProxyStack, index: str) -> None:
    async with AsyncOpenSearch(stack.url, http_compress=True) as through:
        answer = await through.search(index=index, body=match("blue dress"))

    assert ids(answer)[:2] == ["dress", "shoe"]
    assert all("_neural" not in hit["_source"] for hit in answer["hits"]["hits"])


@pytest.mark.case("P26")
def test_several_searches_in_one_request_are_answered_each_in_its_place(through: OpenSearch, index: str) -> None:
    searches: list[dict[str, Any]] = [
        {"index": index},
        match("blue dress"),
        {"index": index},
        match("wing", sort=["n"], size=2),
        {"index": "no-such-index"},
        match("wing"),
        {"index": index},
        match("shoe", _source=["title"], size=1),
    ]

    first, sorted_by_n, missing, last = through.msearch(body=searches)["responses"]

    assert {"dress", "shoe"} <= set(ids(first))
    assert [hit["sort"] for hit in sorted_by_n["hits"]["hits"]] == [[0], [1]]
    assert missing["status"] == 404
    assert [list(hit["_source"]) for hit in last["hits"]["hits"]] == [["title"]]


_words = st.sampled_from(
    [
        "wing",
        "shoe",
        "blue dress",
        "",
        "  ",
        "a AND b",
        '"red shoe"',
        "(",
        "wing~2",
        "x" * 3000,
        "AB-1234",
        "why a wing?",
    ]
)
_field_names = st.sampled_from(["title", "body", "kind", "n", "_neural.predicted_queries", "gone", "ti*", "title^3"])
_leaves = st.one_of(
    st.builds(lambda name, words: {"match": {name: words}}, _field_names, _words),
    st.builds(lambda name, words: {"match": {name: {"query": words, "operator": "and"}}}, _field_names, _words),
    st.builds(lambda names, words: {"multi_match": {"query": words, "fields": names}}, st.lists(_field_names), _words),
    st.builds(lambda name, words: {"match_phrase": {name: words}}, _field_names, _words),
    st.builds(lambda words: {"query_string": {"query": words}}, _words),
    st.builds(lambda words: {"simple_query_string": {"query": words, "fields": ["title"]}}, _words),
    st.builds(
        lambda kind, words: {"multi_match": {"query": words, "type": kind, "fields": ["title", "body"]}},
        st.sampled_from(["most_fields", "cross_fields", "phrase", "phrase_prefix", "bool_prefix", "worst_fields"]),
        _words,
    ),
    st.builds(lambda words: {"combined_fields": {"query": words, "fields": ["title", "body"]}}, _words),
    st.builds(lambda words: {"match_bool_prefix": {"body": words}}, _words),
    st.builds(lambda words: {"nested": {"path": "gone", "query": {"match": {"title": words}}}}, _words),
    st.builds(lambda name, words: {name: {"title": words}}, st.sampled_from(["wildcard", "regexp", "fuzzy"]), _words),
    st.sampled_from(
        [{"match_all": {}}, {"term": {"kind": "ad"}}, {"range": {"n": {"gte": 3}}}, {"exists": {}}, {}, []]
    ),
    st.dictionaries(st.sampled_from(["match", "bool", "query", "title"]), st.sampled_from([1, None, [], {}, "wing"])),
)


def around(queries: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Queries with others inside."""
    clauses = queries | st.lists(queries, max_size=2)
    occurrences = {"must": clauses, "should": clauses, "filter": clauses, "must_not": queries}
    minimum = {"minimum_should_match": st.sampled_from([0, 1, 2, "50%"])}
    return st.one_of(
        st.fixed_dictionaries({}, optional={**occurrences, **minimum}).map(lambda query: {"bool": query}),
        queries.map(lambda query: {"constant_score": {"filter": query}}),
        queries.map(lambda query: {"function_score": {"query": query, "functions": [{"weight": 2}]}}),
        queries.map(lambda query: {"boosting": {"positive": query, "negative": HIDDEN, "negative_boost": 0.5}}),
        st.lists(queries, min_size=1, max_size=2).map(lambda each: {"dis_max": {"queries": each}}),
    )


def wrapped(query: Any) -> dict[str, Any]:
    """As Spring Data sends it."""
    return {"wrapper": {"query": base64.b64encode(json.dumps(query).encode()).decode()}}


_plain = st.recursive(_leaves, around, max_leaves=4)
_queries = _plain | _plain.map(wrapped)
_bodies = st.fixed_dictionaries(
    {"query": _queries},
    optional={
        "from": st.sampled_from([0, 3, 25, 9_999, -1, "x"]),
        "size": st.sampled_from([0, 1, 5, 40, 20_000]),
        "post_filter": st.just({"term": {"kind": "many"}}),
        "min_score": st.sampled_from([0.1, 100]),
        "sort": st.sampled_from(["_score", ["n"], [{"_score": "asc"}]]),
        "_source": st.sampled_from([False, ["title"], "_neural"]),
        "highlight": st.just({"fields": {"title": {}}}),
        "aggs": st.just({"n": {"max": {"field": "n"}}}),
        "track_total_hits": st.sampled_from([True, False, 3]),
    },
)


_parameters = st.sampled_from(
    ["", "?typed_keys=true", "?rest_total_hits_as_int=true", "?size=3", "?explain=true", "?q=wing"]
)


@given(body=_bodies, parameters=_parameters)
@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    derandomize=True,
)
def test_any_search_is_upgraded_or_answered_as_without_the_proxy(
    node: EmbeddedNode, stack: ProxyStack, index: str, body: dict[str, Any], parameters: str
) -> None:
    through, direct = (
        requests.post(f"{url}/{index}/_search{parameters}", json=body, timeout=120) for url in (stack.url, node.url)
    )

    assert through.status_code == direct.status_code
    mark = through.headers.get("X-Bridge", "pass")
    assert "internal_error" not in mark
    if mark.startswith("pass"):
        if direct.status_code == 200:
            asked = names_any(body.get("_source"), "_neural")
            assert without_took(through.json()) == without_took(direct.json() if asked else as_written(direct.json()))
        else:
            assert through.content == direct.content
        return
    upgraded, own = through.json(), direct.json()
    assert {**upgraded["hits"], "hits": [], "max_score": 0} == {**own["hits"], "hits": [], "max_score": 0}
    assert upgraded.get("aggregations") == own.get("aggregations")
    scores = [hit["_score"] for hit in upgraded["hits"]["hits"]]
    assert scores == sorted(scores, reverse=True)
    assert len(set(ids(upgraded))) == len(scores) <= (3 if "size" in parameters else body.get("size", 10))
    assert len(scores) >= len(own["hits"]["hits"])
    if "post_filter" in body:
        assert all(doc_id.startswith("many") for doc_id in ids(upgraded))


def as_written(answer: dict[str, Any]) -> dict[str, Any]:
    """The answer with documents as the application wrote them."""
    for hit in answer["hits"]["hits"]:
        hit.get("_source", {}).pop("_neural", None)
    return answer


def without_took(answer: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in answer.items() if name != "took"}
