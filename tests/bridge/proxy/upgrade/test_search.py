import asyncio
import dataclasses
import gzip
import json
import threading
from contextlib import AsyncExitStack
from typing import Any
from urllib.parse import parse_qsl

import msgspec
import pytest
from aiohttp import web
from yarl import URL

from bridge.profile import (
    META_KEY,
    Calibration,
    Measurement,
    TuningRecord,
)
from bridge.proxy.upgrade import planning
from bridge.proxy.upgrade import search as searches
from bridge.proxy.upgrade.search import SearchTarget, search_target
from bridge.search.filter_path import filtered
from bridge.search.request import parse
from tests.bridge.proxy.conftest import LARGE, MakeStack, Stack, all_answered, slow_reader
from tests.bridge.proxy.scripted_index import PROFILE, QUERY, ScriptedIndex
from tests.bridge.proxy.searching import ids, scores, search
from tests.fake_cluster import Received, Reply, kind_sidecar, reply_json

SLOW_MAPPING = reply_json({"docs": {"mappings": {"_meta": {META_KEY: PROFILE.to_meta()}}}}, delay_s=1.0)


async def test_legs_are_fused_and_the_best_are_reranked(make_stack: MakeStack) -> None:
    stack = await make_stack(ScriptedIndex(titles={"d": "red shoe", "e": "shoe", "a": "bread"}))

    status, mark, answer = await search(stack)

    assert (status, mark.partition(";")[0]) == (200, "hybrid+rerank")
    assert ids(answer)[:2] == ["d", "e"]
    assert set(ids(answer)) == set("abcde")
    assert scores(answer) == sorted(scores(answer), reverse=True)
    assert answer["hits"]["max_score"] == scores(answer)[0]


@pytest.mark.parametrize(
    ("stage", "expected", "mark"),
    [
        ("expansion", ["a", "b", "c", "d"], "expansion"),
        ("vector", ["e", "d", "a", "b", "c"], "vector"),
        ("hybrid", ["a", "d", "e", "b", "c"], "hybrid"),
        ("off", ["a", "b", "c"], "pass; reason=off"),
        ("lexical", ["a", "b", "c"], "pass; reason=lexical"),
    ],
)
async def test_a_search_stops_at_the_stage_it_names(
    make_stack: MakeStack, stage: str, expected: list[str], mark: str
) -> None:
    stack = await make_stack(ScriptedIndex())

    _, told, answer = await search(stack, x_bridge=stage)

    assert ids(answer) == expected
    assert told.startswith(mark)
    assert "/rerank" not in [path for path, _ in stack.sidecar.received]
    assert all(request.header("x-bridge") is None for request in stack.cluster.received)


async def test_an_unknown_stage_is_refused_with_the_known_ones(make_stack: MakeStack) -> None:
    stack = await make_stack(ScriptedIndex())

    status, _, answer = await search(stack, x_bridge="fast")

    assert status == 400
    assert "hybrid" in answer["error"]["reason"]
    assert stack.cluster.received == []


async def test_totals_aggregations_and_everything_else_are_the_applications(make_stack: MakeStack) -> None:
    stack = await make_stack(ScriptedIndex())

    _, _, answer = await search(stack, {**QUERY, "aggs": {"n": {}}})

    assert answer["hits"]["total"] == {"value": 3, "relation": "eq"}
    assert answer["aggregations"] == {"n": {"value": 3}}
    assert answer["_shards"]["total"] == 1
    assert len(ids(answer)) == 5


async def test_the_applications_own_request_reaches_the_cluster_byte_for_byte(make_stack: MakeStack) -> None:
    stack = await make_stack(ScriptedIndex())
    body = b'{\n  "query" : {"match":{"title":"red shoe"}} , "size":3 }'

    async with stack.client.post(
        f"{stack.proxy.url}/docs/_search?typed_keys=true", data=body, headers={"Content-Type": "application/json"}
    ) as answer:
        await answer.read()

    [own] = [request for request in stack.cluster.received if request.body == body]
    assert own.target == "/docs/_search?typed_keys=true"


async def test_window_and_rerank_depth_do_not_depend_on_the_page(make_stack: MakeStack) -> None:
    stack = await make_stack(ScriptedIndex())

    for start, size in ((0, 1), (0, 100), (2, 5)):
        await search(stack, {**QUERY, "from": start, "size": size})

    sizes = {
        json.loads(line)["size"]
        for request in stack.cluster.requests("_msearch")
        for line in request.body.splitlines()[1::2]
    }
    depths = {len(body["texts"]) for path, body in stack.sidecar.received if path == "/rerank"}
    assert (sizes, depths) == ({PROFILE.window}, {PROFILE.rerank.depth})


@pytest.mark.case("P20")
@pytest.mark.parametrize(
    ("more", "reason"), [({"size": 0}, "size_0"), ({"from": 9_990, "size": 11}, "window"), ({"size": 10_001}, "window")]
)
async def test_counts_and_pages_beyond_the_clusters_window_pass(
    make_stack: MakeStack, more: dict[str, Any], reason: str
) -> None:
    stack = await make_stack(ScriptedIndex())

    _, mark, _ = await search(stack, {**QUERY, **more})

    assert mark == f"pass; reason={reason}"
    assert stack.cluster.requests("_msearch") == []


@pytest.mark.case("P2")
@pytest.mark.parametrize(
    ("target", "body"),
    [
        ("/docs/_search?format=yaml", QUERY),
        ("/docs/_search?scroll=1m", QUERY),
        ("/docs/_search?search_type=dfs_query_then_fetch&unknown=1", QUERY),
        ("/docs/_msearch/template", {"id": "mine", "params": {}}),
        ("/docs/_async_search", QUERY),
        ("/docs/_count", QUERY),
        ("/_search", QUERY),
        ("/_all/_search", QUERY),
        ("/*/_search", QUERY),
        ("/remote:docs/_search", QUERY),
        ("/%3Cdocs-%7Bnow%7D%3E/_search", QUERY),
        ("/docs/_search", {"pit": {"id": "x"}, **QUERY}),
    ],
)
async def test_other_searches_pass_byte_for_byte(make_stack: MakeStack, target: str, body: Any) -> None:
    stack = await make_stack(ScriptedIndex(faults={"own": Reply(body=b"as it is", headers=(("x-a", "b"),))}))
    sent = json.dumps(body).encode()

    async with stack.client.post(
        URL(stack.proxy.url + target, encoded=True), data=sent, headers={"Content-Type": "application/json"}
    ) as answer:
        await answer.read()

    *before, passed = stack.cluster.received
    assert (passed.target, passed.body) == (target, sent)
    assert [request.path for request in before] in ([], ["/docs/_mapping"])


@pytest.mark.case("P65")
@pytest.mark.parametrize(
    ("target", "read"),
    [
        ("/docs/_search/", SearchTarget("docs", "", several=False, template=False)),
        ("/docs/_search/template/?pretty", SearchTarget("docs", "pretty", several=False, template=True)),
        ("/_msearch/?size=1", SearchTarget("", "size=1", several=True, template=False)),
        ("/docs/_search//", SearchTarget("docs", "", several=False, template=False)),
        ("/docs/%5Fsearch", None),
        ("/docs/_msearch/template", SearchTarget("docs", "", several=True, template=True)),
        ("//_search", SearchTarget("", "", several=False, template=False)),
        ("/docs//_search", None),
        ("/docs/_searches/", None),
    ],
)
def test_a_search_may_end_in_a_slash_as_in_the_cluster(target: str, read: SearchTarget | None) -> None:
    assert search_target("POST", target) == read


@pytest.mark.case("P48")
@pytest.mark.parametrize(
    "path",
    [
        "/Docs",
        "/my%2Ddocs",
        "/l%C3%A4den",
        "/docs@v1",
        "/docs%2Bx",
        "/%64ocs",
        "/+x",
        "/docs%20old",
        "/%5Fall",
        "/docs%2Fx",
    ],
)
async def test_names_are_read_after_decoding(make_stack: MakeStack, path: str) -> None:
    stack = await make_stack(ScriptedIndex())
    _, mark, _ = await search(stack, target=f"{path}/_search")
    if path in ("/docs%20old", "/%5Fall", "/docs%2Fx"):
        assert mark == "pass; reason=index_expression"
    else:
        assert mark.startswith("hybrid+rerank;")
        assert {request.target.rpartition("/")[0] for request in stack.cluster.received} == {path}


@pytest.mark.parametrize("expression", ["docs,other", "doc*", "docs%2Cother*", "docs,-other"])
async def test_indices_that_agree_are_searched_together(make_stack: MakeStack, expression: str) -> None:
    # The evidence of tuning is each index's own, and no search reads it.
    measurement = Measurement("qrels", 50, "nDCG@10", "2026-01-01T00:00:00Z")
    tuned = msgspec.structs.replace(PROFILE, tuning=TuningRecord(measurement, 5, None, 0.4, 0.5, 0.05, 0.15, []))
    mapping = reply_json(
        {
            index: {"mappings": {"_meta": {META_KEY: profile.to_meta()}}}
            for index, profile in (("docs", PROFILE), ("other", tuned))
        }
    )
    stack = await make_stack(ScriptedIndex(faults={"_mapping": mapping}))

    _, mark, answer = await search(stack, target=f"/{expression}/_search")

    assert mark.startswith("hybrid+rerank;")
    assert len(ids(answer)) == 5
    assert {request.path.rpartition("/")[0] for request in stack.cluster.received} == {f"/{expression}"}


@pytest.mark.parametrize(
    ("body", "target", "shown"),
    [
        ({**QUERY, "sort": ["n"]}, "/docs/_search", False),
        ({}, "/docs/_search", False),
        ({**QUERY, "sort": ["n"]}, "/docs/_search?scroll=1m", True),
        ({**QUERY, "sort": ["n"], "_source": ["title", "_neural"]}, "/docs/_search", True),
    ],
    ids=["sorted", "everything", "scroll", "asked for"],
)
async def test_our_object_is_cut_out_of_answers_that_are_the_clusters_own(
    make_stack: MakeStack, body: Any, target: str, shown: bool
) -> None:
    own = b'{"took" : 1,\n"hits":{"hits":[{"_index":"docs","_id":"1","_source":{ "n":1.50,"_neural":{"stamp":"s"}}}]}}'
    stack = await make_stack(ScriptedIndex(faults={"own": Reply(body=own)}))

    async with stack.client.post(
        stack.proxy.url + target, data=json.dumps(body), headers={"Content-Type": "application/json"}
    ) as answer:
        assert answer.headers["X-Bridge"].startswith("pass; reason=")
        assert await answer.read() == (own if shown else own.replace(b',"_neural":{"stamp":"s"}', b""))


TEMPLATE = {"source": {"query": {"match": {"title": "{{words}}"}}}, "params": {"words": "red shoe"}}


@pytest.mark.case("P2")
async def test_a_template_is_rendered_by_the_cluster_in_the_callers_name(make_stack: MakeStack) -> None:
    stack = await make_stack(ScriptedIndex(rendered=QUERY))

    _, mark, answer = await search(stack, TEMPLATE, target="/docs/_search/template", authorization="alice")

    assert mark.startswith("hybrid+rerank;")
    assert len(ids(answer)) == 5
    rendered, asked = (stack.cluster.requests(path) for path in ("/_render/template", "/docs/_search/template"))
    assert [json.loads(request.body) for request in (*rendered, *asked)] == [TEMPLATE] * 2
    assert {request.header("authorization") for request in stack.cluster.received} == {"alice"}


@pytest.mark.parametrize("rendered", [Reply(403, b"{}"), Reply(200, b"<html>"), Reply(200, b"{}"), Reply(delay_s=60.0)])
async def test_a_template_that_cannot_be_rendered_passes(make_stack: MakeStack, rendered: Reply) -> None:
    stack = await make_stack(ScriptedIndex(faults={"_render/template": rendered}), budget_ms=2000)

    async with stack.client.post(
        f"{stack.proxy.url}/docs/_search/template",
        data=json.dumps(TEMPLATE),
        headers={"Content-Type": "application/json"},
    ) as answer:
        assert answer.headers["X-Bridge"] == "pass; reason=template_unreadable"

    assert stack.cluster.requests("_msearch") == []


async def rerank_fails(path: str, body: dict[str, Any]) -> web.Response:
    return await kind_sidecar(path, body) if path == "/embed" else web.Response(status=500)


@pytest.mark.case("P16")
async def test_the_clusters_own_error_comes_back_verbatim(make_stack: MakeStack) -> None:
    error = Reply(400, b'{ "error":{"type":"parsing_exception"},"status":400}', (("x-a", "b"),))
    stack = await make_stack(ScriptedIndex(faults={"own": error}))

    async with stack.client.post(
        f"{stack.proxy.url}/docs/_search", data=json.dumps(QUERY), headers={"Content-Type": "application/json"}
    ) as answer:
        assert answer.status == 400
        assert await answer.read() == error.body
        assert answer.headers["x-a"] == "b"
        assert "X-Bridge" not in answer.headers


@pytest.mark.case("P12")
@pytest.mark.parametrize("status", [401, 403])
async def test_a_refused_caller_gets_the_clusters_refusal_and_nothing_else(make_stack: MakeStack, status: int) -> None:
    refusal = Reply(status, b"Unauthorized", (("www-authenticate", "Basic"), ("content-type", "text/plain")))
    stack = await make_stack(
        ScriptedIndex(faults=dict.fromkeys(("own", "_msearch", "_mapping", "texts", "shown"), refusal))
    )

    async with stack.client.post(
        f"{stack.proxy.url}/docs/_search", data=json.dumps(QUERY), headers={"Content-Type": "application/json"}
    ) as answer:
        assert (answer.status, await answer.read()) == (status, b"Unauthorized")
        assert answer.headers["WWW-Authenticate"] == "Basic"


@pytest.mark.case("P30")
async def test_signed_requests_pass_untouched(make_stack: MakeStack) -> None:
    stack = await make_stack(ScriptedIndex())

    _, mark, _ = await search(
        stack, authorization="AWS4-HMAC-SHA256 Credential=x", host="search.example", x_amz_date="1"
    )

    assert mark == "pass; reason=signed"
    [request] = stack.cluster.received
    assert request.header("host") == "search.example"
    assert request.header("authorization") == "AWS4-HMAC-SHA256 Credential=x"


async def test_compressed_search_bodies_are_understood(make_stack: MakeStack) -> None:
    stack = await make_stack(ScriptedIndex())
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip", "Accept-Encoding": "gzip"}
    packed = gzip.compress(json.dumps(QUERY).encode())

    async with stack.client.post(f"{stack.proxy.url}/docs/_search", data=packed, headers=headers) as answer:
        assert answer.headers["X-Bridge"].startswith("hybrid+rerank")

    assert [request.body for request in stack.cluster.received].count(packed) == 1


@pytest.mark.case("P25")
async def test_bodies_beyond_the_limit_pass_unread(make_stack: MakeStack) -> None:
    stack = await make_stack(ScriptedIndex(), max_search_body_bytes=100)
    bomb = gzip.compress(json.dumps({"query": {"match": {"title": "x" * 10_000}}}).encode())

    _, mark, _ = await search(stack, {**QUERY, "_source": ["x" * 200]})
    async with stack.client.post(
        f"{stack.proxy.url}/docs/_search",
        data=bomb,
        headers={"Content-Type": "application/json", "Content-Encoding": "gzip"},
    ) as answer:
        assert answer.headers["X-Bridge"] == "pass; reason=body"

    assert mark == "pass; reason=body"
    assert all(request.complete for request in stack.cluster.received)


@pytest.mark.case("P37")
async def test_logs_hold_neither_words_nor_secrets(make_stack: MakeStack, capsys: pytest.CaptureFixture[str]) -> None:
    error = {"type": "query_shard_exception", "reason": "failed to create query: For input string: red shoe"}
    index = ScriptedIndex(legs={"vector": {"error": {**error, "root_cause": [error]}, "status": 400}})
    stack = await make_stack(index, rerank_fails)

    await search(stack, authorization="Basic c2VjcmV0", cookie="session=hidden")
    await search(stack, x_bridge="nonsense", authorization="Basic c2VjcmV0")

    written = "".join(capsys.readouterr())
    assert "rerank_unavailable" in written
    assert "query_shard_exception" in written
    for secret in ("red shoe", "c2VjcmV0", "hidden", "title of"):
        assert secret not in written


@pytest.mark.case("P27", "P39")
async def test_clients_that_do_not_read_take_no_place_from_others(
    make_stack: MakeStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(searches, "MAX_UPGRADES", 2)
    stack = await make_stack(ScriptedIndex(titles={"a": "x" * LARGE}), upgrade_memory_bytes=40 * LARGE)

    async with AsyncExitStack() as slow:
        for _ in range(3):
            head, _ = await slow.enter_async_context(slow_reader(stack, "/docs/_search", "x-bridge: hybrid"))
            assert b"X-Bridge: hybrid" in head
        _, mark, _ = await search(stack, {**QUERY, "_source": False}, x_bridge="hybrid")

    assert mark.startswith("hybrid")


@pytest.mark.case("P27", "P39")
async def test_answers_of_clients_that_do_not_read_have_a_bound_together(make_stack: MakeStack) -> None:
    stack = await make_stack(ScriptedIndex(titles={"a": "x" * LARGE}), upgrade_memory_bytes=5 * LARGE)

    async with AsyncExitStack() as slow:
        heads = [
            (await slow.enter_async_context(slow_reader(stack, "/docs/_search", "x-bridge: hybrid")))[0]
            for _ in range(8)
        ]
        _, small, _ = await search(stack, {**QUERY, "_source": False}, x_bridge="hybrid")
    async with asyncio.timeout(120):
        await all_answered(stack)
    _, large, _ = await search(stack, x_bridge="hybrid")

    upgraded = [b"X-Bridge: hybrid" in head for head in heads]
    assert upgraded[0]
    assert upgraded.count(True) < 5
    assert [b"X-Bridge: pass; reason=busy" in head for head in heads] == [not better for better in upgraded]
    assert small.startswith("hybrid"), "small answers find room beside large ones"
    assert large.startswith("hybrid"), "who is gone gave his memory back"


@pytest.mark.case("P53")
@pytest.mark.parametrize(
    ("target", "body", "mark"),
    [
        ("/docs/_search", json.dumps(QUERY), "hybrid"),
        ("/docs/_search?filter_path=hits.hits._id", json.dumps(QUERY), "hybrid"),
        ("/docs/_search", json.dumps({**QUERY, "sort": ["n"]}), "pass"),
        ("/_msearch", f'{{"index":"docs"}}\n{json.dumps(QUERY)}\n', "hybrid"),
    ],
    ids=["search", "filtered", "only_hidden", "several"],
)
@pytest.mark.parametrize("title", ["short", "long " * 40_000])
async def test_an_answer_of_our_own_is_compressed_for_who_accepts_it(
    make_stack: MakeStack, target: str, body: str, mark: str, title: str
) -> None:
    stack = await make_stack(ScriptedIndex(titles={"a": title}))

    async def asked(**accepted: str) -> tuple[str, bytes]:
        headers = {"Content-Type": "application/json", **accepted}
        async with stack.client.post(URL(stack.proxy.url + target, encoded=True), data=body, headers=headers) as answer:
            assert answer.headers["X-Bridge"].startswith(mark)
            return answer.headers.get("Content-Encoding", ""), await answer.read()

    plain = await asked()
    coding, packed = await asked(**{"Accept-Encoding": "gzip, deflate"})

    assert plain[0] == ""
    assert coding == "gzip"
    assert json.loads(gzip.decompress(packed)) == json.loads(plain[1])


@pytest.mark.case("P42")
@pytest.mark.parametrize(
    ("target", "accepted", "n_sent"),
    [
        ("/docs/_search", {}, 1),
        ("/docs/_search", {"accept_encoding": "br"}, 1),
        ("/docs/_search?filter_path=hits.hits._id,hits.hits._score", {}, 1),
    ],
)
async def test_a_request_that_left_before_its_plan_serves_if_its_answer_can_be_used(
    make_stack: MakeStack, target: str, accepted: dict[str, str], n_sent: int
) -> None:
    stack = await make_stack(ScriptedIndex(faults={"_mapping": SLOW_MAPPING}))

    _, mark, answer = await search(stack, target=target, **accepted)

    assert mark.startswith("hybrid+rerank;")
    assert len(ids(answer)) == 5
    own = [request for request in stack.cluster.requests("/docs/_search") if json.loads(request.body) == QUERY]
    assert len(own) == n_sent


@dataclasses.dataclass
class Filtering(ScriptedIndex):
    """Applies `filter_path` and packs its answers, as nodes do."""

    def __call__(self, request: Received) -> Reply:
        reply = super().__call__(request)
        query = dict(parse_qsl(request.target.partition("?")[2]))
        body = filtered(reply.body, query["filter_path"]) if "filter_path" in query else reply.body
        if request.header("accept-encoding") != "gzip":
            return dataclasses.replace(reply, body=body)
        return dataclasses.replace(
            reply, body=gzip.compress(body), headers=(*reply.headers, ("content-encoding", "gzip"))
        )


@pytest.mark.case("P42")
@pytest.mark.parametrize(
    "filter_path",
    ["", "hits.hits._id", "hits.hits._source.title,took", "hits.total", "-hits.hits._source", "hits.max_score", "none"],
)
@pytest.mark.parametrize("accepted", ["identity", "gzip"])
@pytest.mark.parametrize("own", [("a", "b", "c"), ()], ids=["found", "nothing_found"])
async def test_a_slow_mapping_changes_no_answer_and_costs_no_second_request(
    make_stack: MakeStack, filter_path: str, accepted: str, own: tuple[str, ...]
) -> None:
    target = f"/docs/_search?filter_path={filter_path}" if filter_path else "/docs/_search"
    headers = {"Content-Type": "application/json", "Accept-Encoding": accepted, "x-bridge": "hybrid"}
    answers = []
    for faults in ({}, {"_mapping": dataclasses.replace(SLOW_MAPPING, delay_s=0.2)}):
        stack = await make_stack(Filtering(own=own, faults=faults))
        async with stack.client.post(stack.proxy.url + target, data=json.dumps(QUERY), headers=headers) as answer:
            assert answer.headers["X-Bridge"].startswith("hybrid;"), answer.headers["X-Bridge"]
            content = await answer.read()
        answers.append(json.loads(gzip.decompress(content) if accepted == "gzip" else content))
        sent = [asked for asked in stack.cluster.requests("/docs/_search") if json.loads(asked.body) == QUERY]
        assert len(sent) == 1

    assert answers[0] == answers[1]


@pytest.mark.case("P43")
@pytest.mark.parametrize(("n_conditions", "is_aside"), [(1, False), (5_000, True)])
async def test_a_large_body_is_read_while_others_are_served(
    make_stack: MakeStack, monkeypatch: pytest.MonkeyPatch, n_conditions: int, is_aside: bool
) -> None:
    threads = []

    def parsed(*args: Any, **options: Any) -> Any:
        threads.append(threading.get_ident())
        return parse(*args, **options)

    monkeypatch.setattr(planning, "parse", parsed)
    stack = await make_stack(ScriptedIndex())
    conditions = [{"range": {"n": {"lte": 1_000}}}] * n_conditions

    _, mark, _ = await search(stack, {"query": {"bool": {"must": [QUERY["query"]], "filter": conditions}}})

    assert mark.startswith("hybrid+rerank;")
    assert [thread != threading.get_ident() for thread in threads] == [is_aside]


@pytest.mark.case("P67")
@pytest.mark.parametrize("x_bridge", ["hybrid", "lexical"])
@pytest.mark.parametrize("several", [False, True], ids=["one", "several"])
@pytest.mark.parametrize(
    "held",
    [
        b'"\xc0\xaf"',
        b'"\xff"',
        b'"\xf7\xbf\xbf\xbf"',
        b'"\xed\xa0\xbd"',
        b'{"\xe9":1}',
        b'{"a":' * 994 + b"1" + b"}" * 994,
    ],
    ids=["overlong", "ff", "beyond", "raw-half", "key", "deep"],
)
async def test_one_document_that_cannot_be_decoded_costs_a_page_nothing(
    make_stack: MakeStack, held: bytes, several: bool, x_bridge: str
) -> None:
    hit = b'{"_index":"docs","_id":"%b","_score":%d.5,"_source":{"title":"red shoe","held":%b%b}}'
    ours = b',"_neural":{"predicted_queries":["shoes"],"held":%b}' % held
    own = b'{"took":1,"hits":{"total":{"value":2,"relation":"eq"},"max_score":3.5,"hits":[%b]}}'
    if several:
        own = b'{"took":1,"responses":[' + own + b"]}"
    full = own % b",".join(hit % (doc_id, score, held, ours) for doc_id, score in [(b"b", 3), (b"a", 2)])
    index = ScriptedIndex(own=("b", "a"), expanded=("b", "a"), near=("a",), compared=("a",))

    query = json.dumps({**QUERY, "size": 2}).encode()
    sent = b"{}\n%b\n" % query if several else query

    def script(request: Received) -> Reply:
        return Reply(body=full) if request.body == sent else index(request)

    stack = await make_stack(script)
    async with stack.client.post(
        f"{stack.proxy.url}/docs/{'_msearch' if several else '_search'}",
        data=sent,
        headers={"Content-Type": "application/json", "x-bridge": x_bridge},
    ) as answer:
        body = await answer.read()
        mark = answer.headers["X-Bridge"]

    assert answer.status == 200
    assert b"_neural" not in body
    assert body.count(b'"_source":{"title":"red shoe","held":%b}}' % held) == 2
    if x_bridge == "lexical":
        assert mark == "pass; reason=lexical"
    else:
        assert mark.startswith("hybrid; took")
        assert body.index(b'"_id":"a"') < body.index(b'"_id":"b"')


@pytest.mark.case("P69")
@pytest.mark.parametrize(("limit", "mark"), [(1_000_000, "pass; reason=body"), (10_000_000, "hybrid")])
async def test_a_body_that_does_not_fit_passes_and_gives_its_memory_back(
    make_stack: MakeStack, limit: int, mark: str
) -> None:
    stack = await make_stack(ScriptedIndex(), upgrade_memory_bytes=limit, max_search_body_bytes=1_000_000)
    large = {**QUERY, "stats": ["x" * 600_000]}

    marks = [await search(stack, body, x_bridge="hybrid") for body in [large] * 20 + [QUERY]]

    assert {status for status, _, _ in marks} == {200}
    assert {shown.partition("; took")[0] for _, shown, _ in marks[:-1]} == {mark}
    assert marks[-1][1].startswith("hybrid")
    assert len(max((each.body for each in stack.cluster.received), key=len)) > 600_000


CALIBRATED = msgspec.structs.replace(
    PROFILE,
    calibration=Calibration(2.0, 9.0, PROFILE.encoder.identity, 1, 0.9, 0.8, 1.0, 148, Measurement("", 40, "AUC", "")),
)
"""The legs' first three scores are probabilities of 0.88, 0.5 and 0.12."""
NOTHING: dict[str, Any] = {"own": (), "expanded": ()}


async def counted(stack: Stack, name: str) -> float:
    """A metric without labels."""
    async with stack.client.get(f"{stack.proxy.admin_url}/_bridge/metrics") as answer:
        [line] = [line for line in (await answer.text()).splitlines() if line.startswith(f"{name} ")]
    return float(line.split()[1])


async def test_an_answer_says_how_probable_it_is_that_the_index_has_one(make_stack: MakeStack) -> None:
    stack = await make_stack(ScriptedIndex(profile=CALIBRATED), ranking_ttl_s=60)

    _, first, plain = await search(stack)
    _, again, _ = await search(stack)
    _, _, explained = await search(stack, x_bridge="explain")

    assert first.startswith("hybrid+rerank; confidence=0.88; took_ms=")
    assert again.startswith("hybrid+rerank; confidence=0.88; kept; took_ms=")
    assert explained["_bridge"]["confidence"] == pytest.approx(0.8808)
    assert "_bridge" not in plain
    assert "_bridge" not in plain["hits"]["hits"][0]
    assert await counted(stack, "bridge_proxy_confidence_count") == 3.0


async def test_an_index_that_is_not_calibrated_shows_no_confidence_and_keeps_every_document(
    make_stack: MakeStack,
) -> None:
    stack = await make_stack(ScriptedIndex(), cutoff=0.9)

    _, mark, answer = await search(stack)

    assert "confidence" not in mark
    assert set(ids(answer)) == set("abcde")


@pytest.mark.parametrize(
    ("settings", "header", "expected"),
    [
        ({"cutoff": 0.9}, "", "abcd"),
        ({}, "cutoff=0.9", "abcd"),
        ({"cutoff": 0.9}, "cutoff=0", "abcde"),
        ({}, "", "abcde"),
    ],
    ids=["setting", "request", "request before setting", "neither"],
)
async def test_distant_documents_are_left_out_as_setting_and_request_say(
    make_stack: MakeStack, settings: dict[str, Any], header: str, expected: str
) -> None:
    stack = await make_stack(ScriptedIndex(profile=CALIBRATED), **settings)

    _, _, answer = await search(stack, x_bridge=header)

    assert set(ids(answer)) == set(expected)
    assert answer["hits"]["total"] == {"value": 3, "relation": "eq"}


async def test_closest_documents_are_marked_and_their_pages_are_stable(make_stack: MakeStack) -> None:
    stack = await make_stack(ScriptedIndex(**NOTHING, profile=CALIBRATED), cutoff=0.95, fallback=True, ranking_ttl_s=60)

    _, mark, whole = await search(stack)
    pages = [await search(stack, {**QUERY, "from": start, "size": 1}) for start in range(4)]
    _, _, explained = await search(stack, x_bridge="explain")

    assert mark.startswith("hybrid+rerank; fallback=closest; confidence=0.88; took_ms=")
    assert set(ids(whole)) == set("ade")
    assert whole["hits"]["total"] == {"value": 0, "relation": "eq"}
    assert all(hit["_bridge"] == {"fallback": "closest"} for hit in whole["hits"]["hits"])
    assert [doc_id for _, _, page in pages for doc_id in ids(page)] == ids(whole)
    assert all("; fallback=closest; " in shown for _, shown, _ in pages)
    assert explained["_bridge"]["fallback"] == "closest"
    assert explained["hits"]["hits"][0]["_bridge"].keys() >= {"fallback", "rank", "legs"}
    assert await counted(stack, "bridge_proxy_fallbacks_total") == 6.0


async def test_without_a_fallback_nothing_is_given_if_nothing_is_near_enough(make_stack: MakeStack) -> None:
    stack = await make_stack(ScriptedIndex(**NOTHING, profile=CALIBRATED), cutoff=0.95)

    _, mark, answer = await search(stack)
    _, asked, closest = await search(stack, x_bridge="fallback")

    assert mark.startswith("hybrid; confidence=0.88; took_ms=")
    assert ids(answer) == []
    assert answer["hits"]["total"]["value"] == 0
    assert "fallback=closest" in asked
    assert set(ids(closest)) == set("ade")


async def test_searches_that_match_are_not_marked(make_stack: MakeStack) -> None:
    stack = await make_stack(ScriptedIndex(), fallback=True)

    _, mark, answer = await search(stack)

    assert "fallback" not in mark
    assert not any("_bridge" in hit for hit in answer["hits"]["hits"])


async def test_hits_of_a_multisearch_are_marked_where_its_header_cannot_say_it(make_stack: MakeStack) -> None:
    items = ScriptedIndex(**NOTHING, profile=CALIBRATED)

    body = b'{"index":"docs"}\n' + json.dumps(QUERY).encode() + b'\n{"index":"docs"}\n{"query":{"match_all":{}}}\n'

    def script(request: Received) -> Reply:
        if request.body != body:
            return items(request)
        none = {"took": 1, "hits": {"total": {"value": 0, "relation": "eq"}, "max_score": None, "hits": []}}
        return reply_json({"took": 1, "responses": [{**none, "status": 200}] * 2})

    stack = await make_stack(script, cutoff=0.95, fallback=True)
    headers = {"Content-Type": "application/x-ndjson"}

    async with stack.client.post(f"{stack.proxy.url}/_msearch", data=body, headers=headers) as answered:
        mark, (found, passed) = answered.headers["X-Bridge"], (await answered.json())["responses"]

    assert mark.startswith("upgraded=1/2; took_ms=")
    assert set(ids(found)) == set("ade")
    assert all(hit["_bridge"] == {"fallback": "closest"} for hit in found["hits"]["hits"])
    assert ids(passed) == []
