"""Answers of searches that pass do not show the bridge's object, whatever the reason is."""

import gzip
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest
from yarl import URL

from bridge.profile import META_KEY, SearchRules
from bridge.proxy.upgrade import search as searches
from bridge.search.reasons import CLAUSES, REASONS, SHOWING
from tests.bridge.proxy.conftest import MakeStack, Stack
from tests.bridge.proxy.scripted_index import PROFILE, QUERY
from tests.fake_cluster import Received, Reply, reply_json

pytestmark = pytest.mark.case("P45")

OURS = {"stamp": "s", "embedding": [0.5]}
SOURCE = {"title": "red shoe", "n": 1}
LATIN = msgspec.structs.replace(PROFILE, rules=SearchRules(scripts=["latin"]))


def mapping(*metas: Any) -> Reply:
    return reply_json({f"docs-{i}": {"mappings": {"_meta": meta}} for i, meta in enumerate(metas)})


ENRICHED = mapping({META_KEY: LATIN.to_meta()})


def answer_of(request: Received, source: Mapping[str, Any]) -> Any:
    hit = {"_index": "docs-0", "_id": "1", "_source": source}
    found = {"took": 1, "hits": {"hits": [hit]}, "aggregations": {"a": {"hits": {"hits": [hit]}}}}
    return {"responses": [found]} if "_msearch" in request.path else found


@dataclass
class Cluster:
    """An index whose documents hold the bridge's object. `replies` maps a part of a path to the reply given instead."""

    mapping: Reply = ENRICHED
    packs: bool = False
    replies: Mapping[str, Reply] = field(default_factory=dict)

    def __call__(self, request: Received) -> Reply:
        if request.path.endswith("_mapping"):
            return self.mapping
        if (reply := next((reply for part, reply in self.replies.items() if part in request.path), None)) is not None:
            return reply
        answer = reply_json(answer_of(request, {**SOURCE, "_neural": OURS}))
        if not self.packs:
            return answer
        return Reply(200, gzip.compress(answer.body), (*answer.headers, ("content-encoding", "gzip")))


@dataclass(frozen=True)
class Example:
    """A request that passes for one reason."""

    body: Any = field(default_factory=lambda: QUERY)
    target: str = "/docs/_search"
    headers: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    cluster: Cluster = field(default_factory=Cluster)

    @property
    def sent(self) -> bytes:
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()


def asking(**members: Any) -> Example:
    return Example({**QUERY, **members})


def querying(query: Any) -> Example:
    return Example({"query": query})


def words(text: str) -> Example:
    return querying({"match": {"title": text}})


DEEP = 400
NEWER = {META_KEY: {**PROFILE.to_meta(), "version": 99}}
EXAMPLES = {
    "canary": Example(settings={"canary_percent": 0}),
    "lexical": Example(headers={"x-bridge": "lexical"}),
    "accept": Example(headers={"Accept": "application/json, application/yaml"}),
    "body": Example(settings={"max_search_body_bytes": 5}),
    "content_type": Example(headers={"Content-Type": "application/yaml"}),
    "format": Example(target="/docs/_search?format=yaml"),
    "malformed": querying({}),
    "not_json": Example(b'\xef\xbb\xbf/* comment */ {"query":{"match":{"title":"red shoe"}}}'),
    "q_and_body": Example(target="/docs/_search?q=shoe"),
    "several_templates": Example(b'{}\n{"id":"mine"}\n', target="/docs/_msearch/template"),
    "signed": Example(headers={"Authorization": "AWS4-HMAC-SHA256 Credential=x"}),
    "source": Example(target="/docs/_search?source=%7B%7D"),
    "template_unreadable": Example(
        {"id": "mine"}, target="/docs/_search/template", cluster=Cluster(replies={"_render": Reply(404)})
    ),
    "too_deep": Example(b'{"query":%b{"match":{"title":"red shoe"}}%b}' % (b'{"bool":{"must":' * DEEP, b"}}" * DEEP)),
    "too_many_names": querying({"multi_match": {"query": "red shoe", "fields": [f"f{i}" for i in range(201)]}}),
    "too_many_searches": Example(b"{}\n{}\n" * 2_001, target="/docs/_msearch"),
    "unknown_key": asking(surprise=1),
    "unknown_parameter": Example(target="/docs/_search?pretty=true&error_trace=true&surprise=1"),
    "index_expression": Example(target="/%3Cdocs-%7Bnow%2Fd%7D%3E/_search"),
    "cluster_unavailable": Example(cluster=Cluster(mapping=Reply(500))),
    "mapping_unreadable": Example(cluster=Cluster(mapping=Reply(403))),
    "profile_unreadable": Example(cluster=Cluster(mapping=mapping(NEWER))),
    "profiles_differ": Example(cluster=Cluster(mapping=mapping({META_KEY: PROFILE.to_meta()}, {}))),
    "size_0": asking(size=0),
    "sort": asking(sort=["n"]),
    "stored_fields": asking(stored_fields="_none_"),
    "window": asking(size=10_001),
    "empty_text": words(" "),
    "function_score": querying({"function_score": {"query": QUERY["query"], "functions": [{"random_score": {}}]}}),
    "identifier": words("AB-1234"),
    "long_text": words("shoe " * 500),
    "minimum_should_match": querying({"bool": {"must": [QUERY["query"]], "minimum_should_match": 1}}),
    "nested_filter": querying(
        {"nested": {"path": "x", "query": {"bool": {"must": [QUERY["query"]], "filter": [{"term": {"n": 1}}]}}}}
    ),
    "no_text": Example({}),
    "other_fields": querying({"match": {"other": "red shoe"}}),
    "phrase": querying({"match_phrase": {"title": "red shoe"}}),
    "query_syntax": querying({"query_string": {"query": "red AND shoe"}}),
    "quoted": words('"red shoe"'),
    "script": words("красные туфли"),
    "several_texts": querying({"bool": {"must": [{"match": {"title": "red"}}, {"match": {"title": "shoe"}}]}}),
    "unknown_clause": querying({"surprise": {}}),
    "wrapper": querying({"wrapper": {"query": "no base64"}}),
    "busy": Example(),
    **{
        name: asking(**{name: {}})
        for name in (
            *("collapse", "derived", "ext", "indices_boost", "rank", "rescore", "retriever", "runtime_mappings"),
            *("search_after", "search_pipeline", "slice", "terminate_after"),
        )
    },
    **{name: querying({name: {"query": 5}}) for name in CLAUSES},
}
NOTHING_OF_OURS = {"no_profile", "fields_hidden"}
"""Documents of an index that is not enriched, or has a companion, hold no object of the bridge's."""


def test_every_reason_has_an_example() -> None:
    assert EXAMPLES.keys() | SHOWING.keys() | NOTHING_OF_OURS == REASONS.keys() | set(CLAUSES)


async def passed(stack: Stack, example: Example, **headers: str) -> tuple[str, bytes, Any]:
    """The reason, and the answer as it came and as read."""
    merged = {"Content-Type": "application/json", **example.headers, **headers}
    url = URL(stack.proxy.url + example.target, encoded=True)
    async with stack.client.post(url, data=example.sent, headers=merged) as answer:
        assert answer.status == 200
        content = await answer.read()
        plain = gzip.decompress(content) if answer.headers.get("Content-Encoding") == "gzip" else content
        mark = answer.headers["X-Bridge"]
    assert mark.startswith("pass; reason="), mark
    return mark.removeprefix("pass; reason="), content, json.loads(plain)


def own_request(stack: Stack, example: Example) -> Received:
    [request] = [each for each in stack.cluster.received if each.target == example.target]
    return request


@pytest.mark.parametrize("packs", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize("reason", sorted(EXAMPLES))
async def test_no_answer_that_passes_shows_our_object(
    make_stack: MakeStack, monkeypatch: pytest.MonkeyPatch, reason: str, packs: bool
) -> None:
    example = EXAMPLES[reason]
    if reason == "busy":
        monkeypatch.setattr(searches, "MAX_UPGRADES", 0)
    example.cluster.packs = packs
    stack = await make_stack(example.cluster, **example.settings)

    reason_shown, _, answer = await passed(stack, example, **({"Accept-Encoding": "gzip"} if packs else {}))

    assert reason_shown == reason
    request = own_request(stack, example)
    assert answer == answer_of(request, SOURCE)
    assert request.body == example.sent


@pytest.mark.parametrize(
    ("reason", "example"),
    [
        ("off", Example(headers={"x-bridge": "off"})),
        ("scroll", Example(target="/docs/_search?scroll=1m")),
        ("pit", Example({**QUERY, "pit": {"id": "x"}}, target="/_search")),
        ("sort", asking(sort=["n"], _source=["title", "_neural"])),
        ("not_json", Example(b'/* comment */ {"_source":["title","_neural"]}')),
        ("lexical", Example(target="/docs/_search?_source_includes=title,_neural", headers={"x-bridge": "lexical"})),
        ("no_profile", Example(cluster=Cluster(mapping=mapping({})))),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_an_answer_from_which_nothing_is_left_out_is_the_clusters_byte_for_byte(
    make_stack: MakeStack, reason: str, example: Example
) -> None:
    stack = await make_stack(example.cluster)

    reason_shown, content, answer = await passed(stack, example)

    assert reason_shown == ("index_expression" if reason == "pit" else reason)
    assert content == example.cluster(own_request(stack, example)).body
    assert "_neural" in json.dumps(answer)


@pytest.mark.parametrize(
    ("target", "body", "reason"),
    [
        ("/docs/_search/?surprise", json.dumps(QUERY).encode(), "unknown_parameter"),
        ("/%64ocs/_search//?surprise", json.dumps(QUERY).encode(), "unknown_parameter"),
        ("/_msearch?pretty", b'{"index":"docs"}\n%b\n' % json.dumps(QUERY).encode(), "unknown_parameter"),
        ("/docs/_msearch?surprise", b"{}\n{}\n", "unknown_parameter"),
        ("/docs/_msearch", b"{}\n{}", "malformed"),
        ("/docs/_msearch", b"// comment\n{}\n", "not_json"),
        ("/_msearch/template/?pretty", b'{"index":"docs"}\n{"id":"mine"}\n', "several_templates"),
        ("/remote:docs/_search", json.dumps(QUERY).encode(), "index_expression"),
        ("/_search", json.dumps(QUERY).encode(), "index_expression"),
    ],
)
async def test_other_ways_to_ask_show_none_either(make_stack: MakeStack, target: str, body: bytes, reason: str) -> None:
    example = Example(body, target=target)
    stack = await make_stack(example.cluster)

    reason_shown, _, answer = await passed(stack, example)

    assert (reason_shown, answer) == (reason, answer_of(own_request(stack, example), SOURCE))


async def test_an_object_of_another_name_is_known_once_a_mapping_named_it(make_stack: MakeStack) -> None:
    renamed = msgspec.structs.replace(PROFILE, object_field="ours")
    hit = {"_index": "docs-0", "_id": "1", "_source": {**SOURCE, "ours": OURS}}
    found = reply_json({"hits": {"hits": [hit]}})
    stack = await make_stack(Cluster(mapping({META_KEY: renamed.to_meta()}), replies={"_search": found}))

    await passed(stack, asking(sort=["n"]))
    _, _, answer = await passed(stack, Example(target="/_all/_search"))

    assert answer["hits"]["hits"][0]["_source"] == SOURCE


async def test_an_answer_that_is_no_json_or_too_large_stays_as_it_is(make_stack: MakeStack) -> None:
    yaml = Reply(body=b"_neural: {}", headers=(("content-type", "application/yaml"),))
    large = reply_json({"hits": {"hits": [{"_source": {"t": "x" * 100_000, "_neural": OURS}}]}})
    chunks = b"%x\r\n%b\r\n0\r\n\r\n" % (len(large.body), large.body)
    unannounced = Reply(body=chunks, headers=(*large.headers, ("transfer-encoding", "chunked")))

    for reply in (yaml, large, unannounced):
        stack = await make_stack(Cluster(replies={"_search": reply}), upgrade_memory_bytes=100_000)
        async with stack.client.post(
            f"{stack.proxy.url}/docs/_search?surprise",
            data=json.dumps(QUERY),
            headers={"Content-Type": "application/json"},
        ) as answer:
            assert await answer.read() == (yaml.body if reply is yaml else large.body)
        assert len(stack.cluster.requests("_search")) == 1
