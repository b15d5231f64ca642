import asyncio
import gzip
import json
from typing import Any

import msgspec
import pytest
from aiohttp import web
from yarl import URL

from bridge.profile import (
    META_KEY,
    CascadeSettings,
    FusionSettings,
    Measurement,
    PassageSettings,
    RerankSettings,
    TuningRecord,
)
from tests.bridge.proxy.conftest import MakeStack, Stack
from tests.bridge.proxy.scripted_index import PROFILE, QUERY, ScriptedIndex, kind_of_search
from tests.fake_cluster import Received, Reply, SidecarScript, kind_sidecar, reply_json


async def search(
    stack: Stack, body: Any = QUERY, *, target: str = "/docs/_search", **headers: str
) -> tuple[int, str, Any]:
    """Status, `X-Bridge`, and the answer."""
    given = {"Content-Type": "application/json"} | {name.replace("_", "-"): value for name, value in headers.items()}
    url = URL(stack.proxy.url + target, encoded=True)
    async with stack.client.post(url, data=json.dumps(body), headers=given) as answer:
        return answer.status, answer.headers.get("X-Bridge", ""), await answer.json()


def ids(answer: Any) -> list[str]:
    return [hit["_id"] for hit in answer["hits"]["hits"]]


def scores(answer: Any) -> list[float]:
    return [hit["_score"] for hit in answer["hits"]["hits"]]


async def test_legs_are_fused_and_the_best_are_reranked(make_stack: MakeStack) -> None:
    stack = await make_stack(ScriptedIndex(titles={"d": "red shoe", "e": "shoe", "a": "bread"}))

    status, mark, answer = await search(stack)

    assert (status, mark.partition(";")[0]) == (200, "hybrid+rerank")
    assert ids(answer)[:2] == ["d", "e"]
    assert set(ids(answer)) == set("abcde")
    assert scores(answer) == sorted(scores(answer), reverse=True)
    assert answer["hits"]["max_score"] == scores(answer)[0]


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ("", ["a", "d", "e", "b", "c"]),
        (", vector=0", ["a", "b", "c", "d"]),
        (", expansion=0", ["e", "d", "a", "b", "c"]),
        (", expansion=0, vector=0, lexical=1", ["a", "b", "c"]),
        (", vector=5", ["d", "a", "e", "b", "c"]),
    ],
)
async def test_a_request_may_weigh_the_legs(make_stack: MakeStack, weights: str, expected: list[str]) -> None:
    stack = await make_stack(ScriptedIndex())

    _, _, weighed = await search(stack, x_bridge=f"hybrid{weights}")
    _, _, after = await search(stack, x_bridge="hybrid")

    assert ids(weighed) == expected
    assert ids(after) == ["a", "d", "e", "b", "c"]


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


@pytest.mark.parametrize(
    ("lead", "done"), [(None, "hybrid+rerank"), (1.05, "expansion+confident"), (1.5, "hybrid+rerank")]
)
async def test_a_confident_text_leg_ranks_alone(make_stack: MakeStack, lead: float | None, done: str) -> None:
    """Its first hit scores 10, and its second 9."""
    rules = msgspec.structs.replace(PROFILE.rules, confident_lead=lead)
    stack = await make_stack(ScriptedIndex(profile=msgspec.structs.replace(PROFILE, rules=rules)))

    _, mark, answer = await search(stack)

    assert mark.partition(";")[0] == done
    assert (ids(answer) == ["a", "b", "c", "d"]) is done.startswith("expansion")


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


async def test_our_fields_are_hidden_unless_asked_for(make_stack: MakeStack) -> None:
    stack = await make_stack(ScriptedIndex())

    _, _, hidden = await search(stack)
    _, _, asked = await search(stack, {**QUERY, "_source": ["title", "_neural.stamp"]})

    assert all("_neural" not in hit["_source"] for hit in hidden["hits"]["hits"])
    assert all("_neural" in hit["_source"] for hit in asked["hits"]["hits"])


@pytest.mark.case("P23")
@pytest.mark.parametrize("source", [False, ["n"], {"excludes": ["title"]}])
async def test_reranked_text_is_fetched_apart_and_never_shown(make_stack: MakeStack, source: Any) -> None:
    stack = await make_stack(ScriptedIndex(titles={"d": "red shoe"}))

    _, mark, answer = await search(stack, {**QUERY, "_source": source})

    assert mark.startswith("hybrid+rerank")
    assert ids(answer)[0] == "d"
    shown = [json.loads(request.body) for request in stack.cluster.requests("_search")]
    assert [body["_source"] for body in shown if kind_of_search(body) == "shown"] == [source]
    assert all(("_source" in hit) is (source is not False) for hit in answer["hits"]["hits"])


async def test_long_texts_are_cut_before_they_travel(make_stack: MakeStack) -> None:
    stack = await make_stack(ScriptedIndex(titles={"a": "red shoe " * 10_000}))

    _, mark, _ = await search(stack)

    assert mark.startswith("hybrid+rerank; took")
    assert (
        max(len(text) for path, body in stack.sidecar.received if path == "/rerank" for text in body["texts"]) == 2000
    )


async def test_without_visible_text_the_fused_order_stands(make_stack: MakeStack) -> None:
    stack = await make_stack(ScriptedIndex(titles=dict.fromkeys("abcde", "")))

    _, mark, answer = await search(stack)

    assert mark.startswith("hybrid; degraded=texts_hidden")
    assert ids(answer) == ["a", "d", "e", "b", "c"]
    assert "/rerank" not in [path for path, _ in stack.sidecar.received]


async def test_explained_hits_tell_what_every_stage_said(make_stack: MakeStack) -> None:
    stack = await make_stack(ScriptedIndex(titles={"d": "red shoe"}))

    _, _, answer = await search(stack, x_bridge="rerank, explain")

    first = answer["hits"]["hits"][0]["_bridge"]
    assert first["rank"] == 1
    assert first["legs"] == {"expansion": {"rank": 4, "score": 7.0}, "vector": {"rank": 2, "score": 9.0}}
    assert first["rerank_score"] == 2.0
    assert answer["_bridge"]["stages"] == "hybrid+rerank"
    assert {"embed", "legs", "texts", "rerank", "show"} <= answer["_bridge"]["timings_ms"].keys()
    told = {hit["_id"]: hit["_bridge"] for hit in answer["hits"]["hits"]}
    assert told["a"]["legs"]["lexical"] == {"rank": 1, "score": 10.0}
    assert told["e"]["predicted_queries"] == ["what is e"]
    assert all("highlight" not in hit for hit in answer["hits"]["hits"])


async def test_an_explanation_without_predicted_queries_is_still_given(make_stack: MakeStack) -> None:
    stack = await make_stack(ScriptedIndex(faults={"predictions": Reply(500, b"{}")}))

    _, mark, answer = await search(stack, x_bridge="hybrid, explain")

    assert mark.startswith("hybrid; degraded=explain_unavailable")
    assert [hit["_bridge"]["rank"] for hit in answer["hits"]["hits"]] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("as_int", [True, False])
async def test_the_total_counts_what_the_bridge_found_where_that_is_asked_for(
    make_stack: MakeStack, as_int: bool
) -> None:
    stack = await make_stack(ScriptedIndex(total=3 if as_int else None))

    _, _, answer = await search(
        stack, {**QUERY, "size": 1, "post_filter": {"term": {"n": 1}}}, x_bridge="hybrid, union"
    )

    assert answer["hits"]["total"] == (5 if as_int else {"value": 5, "relation": "eq"})
    [asked] = [body for body in own_searches(stack) if kind_of_search(body) == "matched"]
    assert asked["post_filter"] == {"term": {"n": 1}}


async def test_a_total_that_cannot_be_counted_stays_the_applications(make_stack: MakeStack) -> None:
    stack = await make_stack(ScriptedIndex(faults={"matched": Reply(500, b"{}")}))

    _, mark, answer = await search(stack, x_bridge="hybrid, union")

    assert mark.startswith("hybrid; degraded=total_unavailable")
    assert answer["hits"]["total"]["value"] == 3


NESTED = msgspec.structs.replace(PROFILE, passages=PassageSettings(layout="nested"))


async def test_the_winning_passage_is_a_highlight_where_that_is_asked_for(make_stack: MakeStack) -> None:
    index = ScriptedIndex(profile=NESTED, titles={"d": "bread. red shoe"}, passages={"d": [(7, 15)]})
    stack = await make_stack(index)

    _, _, answer = await search(stack, {**QUERY, "size": 1}, x_bridge="rerank, passage")
    _, _, plain = await search(stack, {**QUERY, "size": 1})

    assert [hit["highlight"] for hit in answer["hits"]["hits"]] == [{"_bridge.passage": ["red shoe"]}]
    assert "highlight" not in plain["hits"]["hits"][0]


@pytest.mark.parametrize(
    ("how", "first"),
    [("max", "d"), ("mean", "e"), ("sum", "a")],
)
async def test_the_scores_of_several_passages_become_one(make_stack: MakeStack, how: Any, first: str) -> None:
    words = {"d": "red shoe bread", "e": "red", "a": "red red bread"}
    passages = {"d": [(0, 8), (9, 14)], "e": [(0, 3)], "a": [(0, 3), (4, 7), (8, 13)]}
    reading = RerankSettings(depth=8, blend=0.0, passages=3, passage_scores=how)
    stack = await make_stack(
        ScriptedIndex(profile=msgspec.structs.replace(NESTED, rerank=reading), titles=words, passages=passages),
        scoring({"red shoe": 1.0, "red": 0.9, "bread": -3.0}),
    )

    _, _, answer = await search(stack, {**QUERY, "size": 1}, x_bridge="rerank, explain")

    assert ids(answer) == [first]
    [asked] = [body for body in own_searches(stack) if kind_of_search(body) == "texts"]
    assert asked["query"]["bool"]["should"][0]["nested"]["inner_hits"]["size"] == 3


def scoring(scores: dict[str, float]) -> SidecarScript:
    """A sidecar that gives each text its score, -9 where it has none."""

    async def sidecar(path: str, body: dict[str, Any]) -> web.Response:
        if path == "/embed":
            return await kind_sidecar(path, body)
        return web.json_response(
            [{"index": i, "score": scores.get(text, -9.0)} for i, text in enumerate(body["texts"])]
        )

    return sidecar


def own_searches(stack: Stack) -> list[dict[str, Any]]:
    """The bodies that came to `_search`."""
    return [json.loads(request.body) for request in stack.cluster.requests("_search")]


async def cascading(path: str, body: dict[str, Any]) -> web.Response:
    """A sidecar whose two models agree: what the large one reads gets ten more."""
    answer = await kind_sidecar(path, body)
    if "cascade_depth" not in body:
        return answer
    assert isinstance(answer.body, bytes)
    scored = sorted(json.loads(answer.body), key=lambda each: -each["score"])
    for rank, each in enumerate(scored):
        each["score"] += (10 if rank < body["cascade_depth"] else 0) - rank / 100
    return web.json_response(scored)


async def test_a_cascade_reads_many_documents_and_the_best_of_them_again(make_stack: MakeStack) -> None:
    cascade = RerankSettings(depth=1, blend=0.0, cascade=CascadeSettings(candidates=5, depth=2))
    index = ScriptedIndex(
        titles={"c": "red shoe", "b": "shoe"}, profile=msgspec.structs.replace(PROFILE, rerank=cascade)
    )
    stack = await make_stack(index, cascading)

    _, mark, answer = await search(stack, x_bridge="cascade, explain")

    assert mark.startswith("hybrid+cascade; took_ms=")
    assert ids(answer)[:2] == ["c", "b"]
    [asked] = [body for path, body in stack.sidecar.received if path == "/rerank"]
    assert (len(asked["texts"]), asked["cascade_depth"]) == (5, 2)
    assert asked["prior_scores"] == sorted(asked["prior_scores"], reverse=True)
    assert (len(asked["prior_scores"]), asked["prior_weight"]) == (5, 0.0)
    told = [sorted(hit["_bridge"].keys() & {"rerank_score", "cascade_score"}) for hit in answer["hits"]["hits"]]
    assert told == [["rerank_score"]] * 2 + [["cascade_score"]] * 3


async def test_without_a_small_model_the_large_one_reads_alone(make_stack: MakeStack) -> None:
    async def without_cascade(path: str, body: dict[str, Any]) -> web.Response:
        return web.Response(status=400) if "cascade_depth" in body else await kind_sidecar(path, body)

    stack = await make_stack(ScriptedIndex(titles={"d": "red shoe"}), without_cascade, breaker_failures=2)

    answers = [await search(stack, x_bridge="cascade") for _ in range(4)]

    assert {mark.partition("; took")[0] for _, mark, _ in answers} == {"hybrid+rerank; degraded=cascade_unavailable"}
    assert {ids(answer)[0] for _, _, answer in answers} == {"d"}
    asked = ["cascade_depth" in body for path, body in stack.sidecar.received if path == "/rerank"]
    assert asked == [True, False, False, False, False]


@pytest.mark.case("P21")
@pytest.mark.parametrize("size", [1, 2, 3, 7])
async def test_pages_neither_repeat_nor_skip_inside_the_window_and_beyond(make_stack: MakeStack, size: int) -> None:
    own = [f"o{i}" for i in range(20)]
    index = ScriptedIndex(own=own, expanded=[*own[2:6], "x", *own[6:]], near=["v1", "o3", "v2"])
    stack = await make_stack(index)
    _, _, whole = await search(stack, {**QUERY, "size": 30})

    pages = []
    page_scores = []
    for start in range(0, 30, size):
        _, _, answer = await search(stack, {**QUERY, "from": start, "size": size})
        pages += ids(answer)
        page_scores += scores(answer)

    assert pages == ids(whole)
    assert len(pages) == len(set(pages))
    assert set(own) <= set(pages)
    assert page_scores == sorted(page_scores, reverse=True)


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
        ("/%64ocs/_search", QUERY),
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


@pytest.mark.case("P2")
async def test_filter_path_is_applied_to_the_composed_answer(make_stack: MakeStack) -> None:
    stack = await make_stack(ScriptedIndex(titles={"d": "red shoe"}))

    _, mark, answer = await search(stack, target="/docs/_search?filter_path=hits.hits._id,hits.total&size=2")

    assert mark.startswith("hybrid+rerank;")
    assert answer == {"hits": {"total": {"value": 3, "relation": "eq"}, "hits": [{"_id": "d"}, {"_id": "a"}]}}
    assert {request.target for request in stack.cluster.requests("_search")} & {"/docs/_search?size=2"}


@pytest.mark.case("P16")
async def test_errors_are_filtered_by_the_cluster_itself(make_stack: MakeStack) -> None:
    def script(request: Received) -> Reply:
        if request.target == "/docs/_search?filter_path=took":
            return Reply(400, b"{}")
        return index(request)

    index = ScriptedIndex(faults={"own": Reply(400, b'{"error":{"type":"parsing_exception"}}')})
    stack = await make_stack(script)

    async with stack.client.post(
        f"{stack.proxy.url}/docs/_search?filter_path=took",
        data=json.dumps(QUERY),
        headers={"Content-Type": "application/json"},
    ) as answer:
        assert (answer.status, await answer.read()) == (400, b"{}")


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


async def test_an_explained_search_is_explained_by_cluster_and_bridge(make_stack: MakeStack) -> None:
    stack = await make_stack(ScriptedIndex())

    _, _, answer = await search(stack, {**QUERY, "explain": True}, x_bridge="hybrid")

    shown = [json.loads(request.body) for request in stack.cluster.requests("_search")]
    assert {body["explain"] for body in shown if kind_of_search(body) in ("own", "shown")} == {True}
    assert all(hit["_bridge"]["rank"] for hit in answer["hits"]["hits"])


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


async def rerank_overloaded(path: str, body: dict[str, Any]) -> web.Response:
    return await kind_sidecar(path, body) if path == "/embed" else web.Response(status=429)


async def rerank_slow(path: str, body: dict[str, Any]) -> web.Response:
    if path == "/rerank":
        await asyncio.sleep(3600)  # longer than any test: an answer proves that the budget is kept
    return await kind_sidecar(path, body)


async def rerank_garbage(path: str, body: dict[str, Any]) -> web.Response:
    return await kind_sidecar(path, body) if path == "/embed" else web.Response(text="<html>")


async def rerank_fewer(path: str, body: dict[str, Any]) -> web.Response:
    if path == "/embed":
        return await kind_sidecar(path, body)
    return web.json_response([{"index": 0, "score": 1.0}])


async def rerank_twice(path: str, body: dict[str, Any]) -> web.Response:
    if path == "/embed":
        return await kind_sidecar(path, body)
    return web.json_response([{"index": 0, "score": 1.0} for _ in body["texts"]])


async def rerank_nan(path: str, body: dict[str, Any]) -> web.Response:
    if path == "/embed":
        return await kind_sidecar(path, body)
    scored = ",".join(f'{{"index":{i},"score":1e999}}' for i in range(len(body["texts"])))
    return web.Response(text=f"[{scored}]", content_type="application/json")


@pytest.mark.case("P13")
@pytest.mark.parametrize(
    ("sidecar", "reason"),
    [
        (rerank_fails, "rerank_unavailable"),
        (rerank_overloaded, "rerank_overloaded"),
        (rerank_slow, "rerank_slow"),
        (rerank_garbage, "rerank_unusable"),
        (rerank_fewer, "rerank_unusable"),
        (rerank_twice, "rerank_unusable"),
        (rerank_nan, "rerank_unusable"),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
async def test_a_failing_reranker_leaves_the_fused_order_within_the_budget(
    make_stack: MakeStack, sidecar: Any, reason: str
) -> None:
    stack = await make_stack(ScriptedIndex(titles={"d": "red shoe"}), sidecar, budget_ms=4000)

    status, mark, answer = await search(stack)

    assert status == 200
    assert mark.startswith(f"hybrid; degraded={reason}; took_ms=")
    assert ids(answer) == ["a", "d", "e", "b", "c"]


@pytest.mark.case("P13")
async def test_the_breaker_leaves_a_dead_reranker_alone_and_finds_it_again(make_stack: MakeStack) -> None:
    broken = True

    async def sidecar(path: str, body: dict[str, Any]) -> web.Response:
        return await (rerank_fails if broken else kind_sidecar)(path, body)

    left_alone = await make_stack(ScriptedIndex(), sidecar, breaker_failures=2, breaker_reset_s=600)
    tried_again = await make_stack(ScriptedIndex(), sidecar, breaker_failures=2, breaker_reset_s=0.05)
    for _ in range(5):
        await search(left_alone)
        await search(tried_again)
    broken = False
    await asyncio.sleep(0.06)
    _, still_open, _ = await search(left_alone)
    _, found_again, _ = await search(tried_again)

    assert [path for path, _ in left_alone.sidecar.received].count("/rerank") == 2
    assert still_open.startswith("hybrid; degraded=rerank_unavailable")
    assert found_again.startswith("hybrid+rerank;")


@pytest.mark.case("P13")
@pytest.mark.case("P14")
async def test_no_sidecar_at_all_still_gives_expansions(make_stack: MakeStack) -> None:
    stack = await make_stack(ScriptedIndex(), sidecar_url="http://127.0.0.1:9")

    status, mark, answer = await search(stack)

    assert status == 200
    assert mark.startswith("expansion; degraded=embedder_unavailable,rerank_unavailable")
    assert ids(answer) == ["a", "b", "c", "d"]


@pytest.mark.case("P14")
@pytest.mark.parametrize(
    "embeddings",
    [[], [[1.0, 0.0]], [[1.0, 0.0, 0.0, 0.0]] * 2, {"error": "x"}, [["a", "b", "c", "d"]]],
    ids=["none", "another dimension", "two", "an object", "words"],
)
async def test_an_unusable_embedding_takes_out_the_vector_leg(make_stack: MakeStack, embeddings: Any) -> None:
    async def sidecar(path: str, body: dict[str, Any]) -> web.Response:
        return web.json_response(embeddings) if path == "/embed" else await kind_sidecar(path, body)

    stack = await make_stack(ScriptedIndex(), sidecar)

    _, mark, answer = await search(stack)

    assert mark.startswith("expansion+rerank; degraded=embedder_unusable")
    assert ids(answer) == ["a", "b", "c", "d"]


@pytest.mark.case("P14")
async def test_without_embedder_and_expansions_the_own_answer_is_given(make_stack: MakeStack) -> None:
    stack = await make_stack(
        ScriptedIndex(legs={"expansion": {"error": {"type": "x"}, "status": 500}}), sidecar_url="http://127.0.0.1:9"
    )

    status, mark, answer = await search(stack)

    assert status == 200
    assert mark.startswith("lexical; degraded=embedder_unavailable,expansion_leg_failed")
    assert ids(answer) == ["a", "b", "c"]
    assert all("_neural" not in hit["_source"] for hit in answer["hits"]["hits"])


@pytest.mark.case("P15")
@pytest.mark.parametrize(
    "item",
    [
        {"error": {"type": "illegal_argument_exception", "reason": "no knn_vector field"}, "status": 400},
        {"error": {"type": "circuit_breaking_exception"}, "status": 429},
        {"hits": {"hits": []}, "_shards": {"failed": 1}, "status": 200},
    ],
    ids=["field missing", "circuit breaker", "all shards failed"],
)
async def test_a_failing_vector_leg_leaves_the_others(make_stack: MakeStack, item: Any) -> None:
    stack = await make_stack(ScriptedIndex(legs={"vector": item}))

    status, mark, answer = await search(stack, x_bridge="hybrid")

    assert status == 200
    assert mark.startswith("expansion; degraded=vector_leg_failed")
    assert ids(answer) == ["a", "b", "c", "d"]


@pytest.mark.case("P15")
@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (Reply(503, b"{}"), "legs_unavailable"),
        (Reply(403, b"{}"), "legs_forbidden"),
        (Reply(200, b"<html>"), "legs_unavailable"),
        (reply_json({"responses": []}), "legs_unavailable"),
        (Reply(break_after=0), "legs_unavailable"),
        (Reply(delay_s=60.0), "legs_slow"),
    ],
    ids=["503", "403", "html", "too few", "cut", "slow"],
)
async def test_failing_legs_leave_the_own_answer(make_stack: MakeStack, fault: Reply, reason: str) -> None:
    stack = await make_stack(ScriptedIndex(faults={"_msearch": fault}), budget_ms=4000)

    status, mark, answer = await search(stack)

    assert status == 200
    assert mark.startswith(f"lexical; degraded={reason}")
    assert ids(answer) == ["a", "b", "c"]
    assert scores(answer) == [5.0, 4.9, 4.8]


@pytest.mark.parametrize("fault", [Reply(500, b"{}"), Reply(200, b"[]"), Reply(break_after=0)])
async def test_hits_that_cannot_be_shown_leave_the_own_answer(make_stack: MakeStack, fault: Reply) -> None:
    stack = await make_stack(ScriptedIndex(faults={"shown": fault}))

    status, mark, answer = await search(stack)

    assert status == 200
    assert mark.startswith("lexical; degraded=hits_unavailable")
    assert ids(answer) == ["a", "b", "c"]


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


@pytest.mark.case("P11")
async def test_every_leg_carries_the_callers_identity_and_no_other(make_stack: MakeStack) -> None:
    stack = await make_stack(ScriptedIndex(), profile_ttl_s=0)
    for caller in ("alice", "bob"):
        await search(
            stack, authorization=caller, cookie=f"session={caller}", x_opaque_id="42", securitytenant=f"of-{caller}"
        )

    half = len(stack.cluster.received) // 2
    for caller, requests in (("alice", stack.cluster.received[:half]), ("bob", stack.cluster.received[half:])):
        assert {request.path for request in requests} == {"/docs/_search", "/docs/_msearch", "/docs/_mapping"}
        assert {request.header("authorization") for request in requests} == {caller}
        assert {request.header("cookie") for request in requests} == {f"session={caller}"}
        assert {request.header("securitytenant") for request in requests} == {f"of-{caller}"}
        assert {request.header("x-opaque-id") for request in requests} == {"42"}


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


@pytest.mark.parametrize(
    ("mapping", "reason"),
    [
        (reply_json({"docs": {"mappings": {}}}), "no_profile"),
        (reply_json({}), "no_profile"),
        (reply_json({"a": {"mappings": {"_meta": {"neural_bridge": {"version": 99}}}}}), "profile_unreadable"),
        (
            reply_json(
                {
                    "a": {"mappings": {"_meta": {"neural_bridge": PROFILE.to_meta()}}},
                    "b": {"mappings": {"_meta": {"neural_bridge": {**PROFILE.to_meta(), "window": 9}}}},
                }
            ),
            "profiles_differ",
        ),
        (Reply(403, b"{}"), "mapping_unreadable"),
        (Reply(break_after=0), "mapping_unreadable"),
        (Reply(body=b"x" * 100, break_after=10, headers=(("content-length", "100"),)), "mapping_unreadable"),
        (Reply(delay_s=60.0), "mapping_unreadable"),
        (Reply(200, b"<html>"), "profile_unreadable"),
    ],
)
async def test_an_index_without_a_readable_profile_passes(make_stack: MakeStack, mapping: Reply, reason: str) -> None:
    stack = await make_stack(ScriptedIndex(faults={"_mapping": mapping}), budget_ms=2000)

    _, mark, answer = await search(stack)

    assert mark == f"pass; reason={reason}"
    assert ids(answer) == ["a", "b", "c"]


async def test_profiles_are_remembered(make_stack: MakeStack) -> None:
    stack = await make_stack(ScriptedIndex(), profile_ttl_s=600)
    for _ in range(2):
        await search(stack)
    assert len(stack.cluster.requests("_mapping")) == 1


async def test_profiles_are_read_again(make_stack: MakeStack) -> None:
    index = ScriptedIndex()
    stack = await make_stack(index, profile_ttl_s=0)
    await search(stack)
    index.profile = msgspec.structs.replace(PROFILE, stages=["lexical", "expansion"])

    _, mark, _ = await search(stack)

    assert mark.startswith("expansion;")


@pytest.mark.case("P33")
async def test_a_cluster_of_another_engine_is_asked_in_its_own_language_once_its_mapping_is_read(
    make_stack: MakeStack,
) -> None:
    index = ScriptedIndex()
    stack = await make_stack(index, profile_ttl_s=0)
    await search(stack, x_bridge="hybrid")

    # The index was copied to another engine, whose mapping says how its vectors are kept.
    index.profile = msgspec.structs.replace(PROFILE, vector_type="dense_vector")
    _, mark, _ = await search(stack, x_bridge="hybrid")

    assert mark.startswith("hybrid; took")
    asked = [request.body for request in stack.cluster.requests("_msearch")]
    assert [b'"query_vector"' in body for body in asked if b'"knn":{' in body] == [False, True]


async def test_a_refused_mapping_is_not_remembered_for_others(make_stack: MakeStack) -> None:
    index = ScriptedIndex()

    def script(request: Received) -> Reply:
        if request.path.endswith("_mapping") and request.header("authorization") == "nobody":
            return Reply(403, b"{}")
        return index(request)

    stack = await make_stack(script)

    _, refused, _ = await search(stack, authorization="nobody")
    _, allowed, _ = await search(stack, authorization="somebody")

    assert refused == "pass; reason=mapping_unreadable"
    assert allowed.startswith("hybrid+rerank")


@pytest.mark.case("S9")
async def test_hidden_neighbours_are_made_up_for_by_a_full_comparison(make_stack: MakeStack) -> None:
    stack = await make_stack(ScriptedIndex(near=["e"], compared=["e", "f", "g"]))

    _, mark, answer = await search(stack, x_bridge="vector")

    assert mark.startswith("vector; took")
    assert ids(answer)[:3] == ["e", "f", "g"]


async def test_a_full_window_of_neighbours_needs_no_full_comparison(make_stack: MakeStack) -> None:
    stack = await make_stack(ScriptedIndex(near=[f"v{i}" for i in range(20)]))

    await search(stack, x_bridge="vector")

    assert len(stack.cluster.requests("_msearch")) == 1


async def test_min_score_keeps_documents_out_that_only_the_vector_leg_found(make_stack: MakeStack) -> None:
    stack = await make_stack(ScriptedIndex())

    _, _, answer = await search(stack, {**QUERY, "min_score": 0.5}, x_bridge="hybrid")

    assert "e" not in ids(answer)
    assert set(ids(answer)) == set("abcd")


async def test_an_index_without_expansions_fuses_the_applications_own_query(make_stack: MakeStack) -> None:
    stack = await make_stack(ScriptedIndex(profile=msgspec.structs.replace(PROFILE, generator=None)))

    _, mark, answer = await search(stack, x_bridge="hybrid, explain")

    assert mark.startswith("hybrid;")
    assert {leg for hit in answer["hits"]["hits"] for leg in hit["_bridge"]["legs"]} == {"lexical", "vector"}


async def test_weights_of_the_profile_decide(make_stack: MakeStack) -> None:
    fusion = FusionSettings(method="minmax", weights={"expansion": 0.01, "vector": 1.0})
    stack = await make_stack(ScriptedIndex(profile=msgspec.structs.replace(PROFILE, fusion=fusion)))

    _, _, answer = await search(stack, x_bridge="hybrid")

    assert ids(answer)[:2] == ["e", "d"]


async def test_vectors_of_another_encoder_are_never_compared(make_stack: MakeStack) -> None:
    stack = await make_stack(ScriptedIndex(), profile_ttl_s=0)
    stack.sidecar.encoder = "other@123456789abc"
    _, mismatch, _ = await search(stack, x_bridge="hybrid")

    stack.sidecar.encoder = PROFILE.encoder.identity
    _, match, _ = await search(stack, x_bridge="hybrid")

    assert mismatch.startswith("expansion; degraded=encoder_mismatch")
    assert match.startswith("hybrid;")


async def test_of_several_encoders_that_of_the_index_is_asked_for(make_stack: MakeStack) -> None:
    stack = await make_stack(ScriptedIndex())
    stack.sidecar.encoder = "other@123456789abc"
    stack.sidecar.more_encoders = [PROFILE.encoder.identity]
    _, mark, _ = await search(stack, x_bridge="hybrid")
    assert mark.startswith("hybrid;")
    [asked] = [body for path, body in stack.sidecar.received if path == "/embed"]
    assert asked["model"] == PROFILE.encoder.identity


async def test_embeddings_of_a_query_are_asked_for_once(make_stack: MakeStack) -> None:
    stack = await make_stack(ScriptedIndex())

    for _ in range(3):
        await search(stack, x_bridge="vector")

    assert [path for path, _ in stack.sidecar.received] == ["/embed"]


async def test_searches_that_ask_for_one_embedding_at_a_time_share_it(make_stack: MakeStack) -> None:
    held = asyncio.Event()

    async def sidecar(path: str, body: dict[str, Any]) -> web.Response:
        await held.wait()
        return await kind_sidecar(path, body)

    stack = await make_stack(ScriptedIndex(), sidecar, budget_ms=600_000)
    asking = [asyncio.create_task(search(stack, x_bridge="vector", authorization=name)) for name in "abc"]
    # The mapping, once or for each, and each caller's own search: all have come.
    while len(stack.cluster.requests("/docs/_search")) < 3:  # noqa: ASYNC110 - the scripted cluster counts requests
        await asyncio.sleep(0.01)
    asking[0].cancel()
    held.set()
    answers = await asyncio.gather(*asking[1:])

    assert [path for path, _ in stack.sidecar.received] == ["/embed"]
    assert all(mark.startswith("vector; took") for _, mark, _ in answers)


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
