"""Every stage takes part, or is left out with its reason."""

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import msgspec
import pytest
from aiohttp import web

from bridge.profile import (
    CascadeSettings,
    FusionSettings,
    PassageSettings,
    RerankSettings,
)
from bridge.proxy.upgrade import model_client
from tests.bridge.proxy.conftest import MakeStack, Stack
from tests.bridge.proxy.scripted_index import PROFILE, QUERY, WEIGHED, ScriptedIndex, kind_of_search
from tests.bridge.proxy.searching import ids, scores, search
from tests.bridge.proxy.upgrade.test_search import counted
from tests.fake_cluster import Received, Reply, Script, SidecarScript, kind_sidecar, reply_json


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


async def test_vector_and_terms_of_a_query_are_asked_for_together(make_stack: MakeStack) -> None:
    """Neither comes before both are asked for."""
    asked = asyncio.Barrier(2)

    async def sidecar(path: str, body: dict[str, Any]) -> web.Response:
        if path in ("/embed", "/embed_sparse"):
            await asked.wait()
        return await kind_sidecar(path, body)

    both = msgspec.structs.replace(WEIGHED, vector_type="knn_vector")
    stack = await make_stack(ScriptedIndex(profile=both), sidecar)

    _, mark, answer = await search(stack, x_bridge="hybrid, vector=1, explain")

    assert mark.startswith("hybrid; took")
    found_by = {leg for hit in answer["hits"]["hits"] for leg in hit["_bridge"]["legs"]}
    assert found_by == {"lexical", "expansion", "vector", "sparse"}


async def test_text_legs_do_not_wait_for_a_late_embedding(make_stack: MakeStack) -> None:
    """The embedding comes only when the text leg was asked for."""
    asked_for = asyncio.Event()

    async def sidecar(path: str, body: dict[str, Any]) -> web.Response:
        if path == "/embed":
            await asked_for.wait()
        return await kind_sidecar(path, body)

    def answer(request: Received) -> Reply:
        if request.path.endswith("_msearch"):
            asked_for.set()
        return index(request)

    index = ScriptedIndex(near=[*"eda", *(f"v{i}" for i in range(20))])
    stack = await make_stack(answer, sidecar, budget_ms=6000)

    _, mark, page = await search(stack, x_bridge="hybrid")
    _, _, again = await search(stack, x_bridge="hybrid")

    assert mark.startswith("hybrid; took")
    assert ids(page) == ids(again)
    assert ids(page)[:3] == ["a", "d", "e"]
    asked = [len(request.body.splitlines()) // 2 for request in stack.cluster.requests("_msearch")]
    assert asked == [1, 1, 2]  # with the embedding at hand, one request is for both


async def test_with_too_little_time_fewer_documents_are_reranked(make_stack: MakeStack) -> None:
    """The first search reads 16 characters in half a second, so there is no time for two thousand."""
    index = ScriptedIndex(
        titles=dict.fromkeys("abcd", "shoe") | dict.fromkeys("efgh", "shoe " * 400),
        near=list("efgh"),
        compared=list("efgh"),
        profile=msgspec.structs.replace(PROFILE, rerank=RerankSettings(depth=8)),
    )

    async def slow(path: str, body: dict[str, Any]) -> web.Response:
        if path == "/rerank":
            await asyncio.sleep(0.5)
        return await kind_sidecar(path, body)

    stack = await make_stack(index, slow, budget_ms=4000)

    _, first, _ = await search(stack, x_bridge="rerank, vector=0")
    _, second, _ = await search(stack, x_bridge="rerank")

    assert first.startswith("expansion+rerank; took")
    assert second.startswith(f"hybrid+rerank; reranked={model_client.FEWEST_READ}; took")
    asked = [len(body["texts"]) for path, body in stack.sidecar.received if path == "/rerank"]
    assert asked == [4, model_client.FEWEST_READ]


async def test_a_failing_sparse_leg_leaves_the_others(make_stack: MakeStack) -> None:
    failing = {"status": 400, "error": {"type": "parsing_exception"}}
    stack = await make_stack(ScriptedIndex(profile=WEIGHED, legs={"sparse": failing}))

    _, mark, answer = await search(stack, x_bridge="hybrid")

    assert mark.startswith("expansion; degraded=sparse_leg_failed")
    assert ids(answer) == ["a", "b", "c", "d"]


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


NESTED = msgspec.structs.replace(PROFILE, passages=PassageSettings(layout="nested"))


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


SHOE = {
    "hits": {"total": {"value": 7, "relation": "eq"}, "hits": [{"highlight": {"title": ["a \ue000shoe\ue001 here"]}}]}
}


def lookups(index: ScriptedIndex, *, faults: Mapping[str, Reply] | None = None) -> Script:
    """An index that holds `shoe` and `blue`, and no other word."""

    def script(request: Received) -> Reply:
        bodies = request.body.splitlines()[1::2] if request.path.endswith("_msearch") else []
        if bodies and b'"terminate_after"' in bodies[0]:
            items: list[Any] = [{"hits": {"total": {"value": int(b'"blue"' in body)}, "hits": []}} for body in bodies]
            return (faults or {}).get("first") or reply_json({"responses": items})
        if bodies and b'"suggest"' in bodies[0]:
            near = {"text": "sheo", "offset": 0, "options": [{"text": "shoe"}]}
            items = [{"hits": {"total": {"value": 9}, "hits": []}, "suggest": {"0-0": [near]}}]
            return (faults or {}).get("second") or reply_json({"responses": items})
        if bodies and b'"highlight"' in bodies[0]:
            none = {"hits": {"total": {"value": 0}, "hits": []}}
            items = [SHOE if b'"value":"shoe"' in body else none for body in bodies]
            return (faults or {}).get("third") or reply_json({"responses": items})
        return index(request)

    return script


MISSPELT = {"query": {"match": {"title": "blue sheo"}}}


async def test_a_misspelt_word_is_repaired_for_the_legs_and_the_models_and_not_in_the_own_request(
    make_stack: MakeStack,
) -> None:
    stack = await make_stack(lookups(ScriptedIndex()), ranking_ttl_s=60)

    _, mark, answer = await search(stack, MISSPELT, x_bridge="repair, explain")
    _, again, _ = await search(stack, MISSPELT, x_bridge="repair")
    _, kept, _ = await search(stack, MISSPELT, x_bridge="repair")
    _, off, _ = await search(stack, MISSPELT)

    assert mark.startswith("hybrid+rerank; repaired=sheo>shoe; took_ms=")
    assert answer["_bridge"]["repaired"] == {"sheo": "shoe"}
    assert "repaired=sheo>shoe" in again
    assert "; repaired=sheo>shoe; kept;" in kept
    assert off.startswith("hybrid+rerank; took_ms=")
    first = [body["inputs"] for path, body in stack.sidecar.received if path == "/embed"]
    assert first == [["blue sheo"], ["blue shoe"]]  # later ones are remembered
    assert {body["query"] for path, body in stack.sidecar.received if path == "/rerank"} == {"blue shoe", "blue sheo"}
    own = [json.loads(each.body) for each in stack.cluster.requests("/docs/_search") if each.body]
    assert MISSPELT in own
    assert await counted(stack, "bridge_proxy_repairs_total") == 3.0


@pytest.mark.parametrize("request_", ["first", "second", "third"])
@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (Reply(503, b"{}"), "repair_unavailable"),
        (Reply(200, b"[]"), "repair_unavailable"),
        (Reply(403, b"{}"), "repair_forbidden"),
    ],
    ids=["down", "not understood", "forbidden"],
)
async def test_a_search_goes_on_if_words_cannot_be_looked_up(
    make_stack: MakeStack, request_: str, fault: Reply, reason: str
) -> None:
    stack = await make_stack(lookups(ScriptedIndex(), faults={request_: fault}))

    status, mark, answer = await search(stack, MISSPELT, x_bridge="hybrid, repair")

    assert (status, ids(answer)) == (200, ["a", "d", "e", "b", "c"])
    assert mark.startswith(f"hybrid; degraded={reason}; took_ms=")


async def test_a_search_waits_no_longer_for_words_than_for_encoding_them(make_stack: MakeStack) -> None:
    stack = await make_stack(lookups(ScriptedIndex(), faults={"first": Reply(delay_s=60.0)}), budget_ms=2_000)

    _, mark, answer = await search(stack, MISSPELT, x_bridge="hybrid, repair")

    assert ids(answer)
    assert "repair_slow" in mark
