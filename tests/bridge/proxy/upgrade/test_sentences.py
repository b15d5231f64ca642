"""Hits that lack a highlight get the sentence that answers, from what the cluster shows of them to the caller."""

import math
from typing import Any

import msgspec
import pytest
from aiohttp import web

from bridge.profile import PassageSettings, SearchRules
from bridge.proxy.upgrade.sentences import MAX_READ
from bridge.search.highlighting import WORDS_WEIGHT
from tests.bridge.proxy.conftest import MakeStack, Stack
from tests.bridge.proxy.scripted_index import PROFILE, QUERY, ScriptedIndex
from tests.bridge.proxy.searching import ids, search
from tests.fake_cluster import Reply, kind_sidecar

HIGHLIGHTED: dict[str, Any] = {**QUERY, "highlight": {"fields": {"title": {}}}}
TITLES = {
    "a": "red shoe",
    "d": "Bread is baked. A shoe is worn. A red shoe is worn outside.",
    "e": ["Bread.", "Wine. One shoe & another."],
}
OWN = {"a": {"title": ["<em>red</em> <em>shoe</em>"]}}
INDEX: dict[str, Any] = {"titles": TITLES, "highlights": OWN}


def shown(answer: Any) -> dict[str, Any]:
    """Id → highlights."""
    return {hit["_id"]: hit.get("highlight") for hit in answer["hits"]["hits"] if hit["_id"] in TITLES}


async def asked(
    stack: Stack, body: dict[str, Any] = HIGHLIGHTED, control: str = "rerank, sentences"
) -> tuple[str, Any]:
    _, mark, answer = await search(stack, body, x_bridge=control)
    return mark, answer


async def test_a_hit_without_a_highlight_gets_the_sentence_that_answers(make_stack: MakeStack) -> None:
    stack = await make_stack(ScriptedIndex(**INDEX))

    mark, answer = await asked(stack)
    _, plain = await asked(stack, control="rerank")

    assert mark.startswith("hybrid+rerank; took_ms")
    assert shown(answer) == {
        **OWN,
        "d": {"title": ["<em>A red shoe is worn outside.</em>"]},
        "e": {"title": ["<em>One shoe & another.</em>"]},
    }
    assert shown(plain) == {**OWN, "d": None, "e": None}
    assert ids(answer) == ids(plain)


async def test_nothing_is_added_unless_the_application_wants_highlights(make_stack: MakeStack) -> None:
    stack = await make_stack(ScriptedIndex(**INDEX))

    _, without = await asked(stack, QUERY)
    _, of_others = await asked(stack, {**QUERY, "highlight": {"fields": {"n": {}}}})

    assert set(shown(without).values()) == {None}
    assert shown(of_others)["d"] is None
    assert len([path for path, _ in stack.sidecar.received if path == "/rerank"]) == 2


async def test_a_rule_of_the_index_asks_for_sentences(make_stack: MakeStack) -> None:
    ruled = msgspec.structs.replace(PROFILE, rules=SearchRules(sentences=True))
    stack = await make_stack(ScriptedIndex(**INDEX, profile=ruled))

    _, answer = await asked(stack, control="hybrid")

    assert shown(answer)["d"] == {"title": ["<em>A red shoe is worn outside.</em>"]}


async def test_an_explanation_says_which_hits_got_a_sentence_and_where_it_stands(make_stack: MakeStack) -> None:
    stack = await make_stack(ScriptedIndex(**INDEX))

    _, answer = await asked(stack, control="rerank, explain, sentences")

    explained = {hit["_id"]: hit["_bridge"].get("sentences") for hit in answer["hits"]["hits"]}
    assert explained["a"] is None
    # Two words of the query and one, which stand in so many of three sentences.
    by_words = WORDS_WEIGHT * (math.log(1 + 3 / 1) + math.log(1 + 3 / 2)), WORDS_WEIGHT * math.log(1 + 3 / 1)
    expected = ("d", 0, 32, 59, 2 + by_words[0]), ("e", 1, 6, 25, 1 + by_words[1])
    for doc_id, value, start, end, score in expected:
        sentence = {"value": value, "start": start, "end": end, "score": pytest.approx(score)}
        assert explained[doc_id] == {"title": sentence}
    assert answer["_bridge"]["timings_ms"]["sentences"] > 0


async def test_the_text_is_asked_for_in_the_callers_name_if_the_application_does_not_show_it(
    make_stack: MakeStack,
) -> None:
    stack = await make_stack(ScriptedIndex(**INDEX))

    _, _, answer = await search(
        stack, {**HIGHLIGHTED, "_source": False}, x_bridge="hybrid, sentences", Authorization="Basic eDp5"
    )

    assert shown(answer)["d"] == {"title": ["<em>A red shoe is worn outside.</em>"]}
    assert all("_source" not in hit for hit in answer["hits"]["hits"])
    assert {request.header("authorization") for request in stack.cluster.requests("_search")} == {"Basic eDp5"}


async def test_a_text_that_cannot_be_had_is_no_sentence(make_stack: MakeStack) -> None:
    stack = await make_stack(ScriptedIndex(**INDEX, faults={"texts": Reply(500, b"{}")}))

    mark, answer = await asked(stack, {**HIGHLIGHTED, "_source": False}, control="hybrid, sentences")

    assert mark.startswith("hybrid; degraded=sentences_unavailable")
    assert shown(answer) == {**OWN, "d": None, "e": None}


async def test_without_a_reranker_there_is_no_sentence_and_the_ranking_stays(make_stack: MakeStack) -> None:
    async def no_reranker(path: str, body: dict[str, Any]) -> web.Response:
        return web.Response(status=503) if path == "/rerank" else await kind_sidecar(path, body)

    stack = await make_stack(ScriptedIndex(**INDEX), no_reranker)

    mark, answer = await asked(stack, control="hybrid, sentences")
    _, plain = await asked(stack, control="hybrid")

    assert mark.startswith("hybrid; degraded=sentences_unavailable")
    assert shown(answer) == {**OWN, "d": None, "e": None}
    assert ids(answer) == ids(plain)


async def test_sentences_that_cannot_be_read_leave_reranking_alone(make_stack: MakeStack) -> None:
    """A breaker each: what is too slow for sentences is no reason to rank by less."""

    async def only_titles(path: str, body: dict[str, Any]) -> web.Response:
        is_of_sentences = path == "/rerank" and "Bread is baked." in body["texts"]
        return web.Response(status=500) if is_of_sentences else await kind_sidecar(path, body)

    stack = await make_stack(ScriptedIndex(**INDEX), only_titles, breaker_failures=1)

    marks = [(await asked(stack))[0] for _ in range(3)]

    assert all(mark.startswith("hybrid+rerank; degraded=sentences_unavailable") for mark in marks)


async def test_of_a_long_text_the_passage_that_was_found_is_read(make_stack: MakeStack) -> None:
    nested = msgspec.structs.replace(PROFILE, passages=PassageSettings(layout="nested"))
    text = " ".join(["A red shoe.", *(f"Bread number {n}." for n in range(100)), "One shoe here.", "Last."])
    at = text.index("Bread number 98")
    index = ScriptedIndex(profile=nested, titles={**TITLES, "d": text}, passages={"d": [(at, len(text))]})
    stack = await make_stack(index)

    for stage in ("hybrid", "rerank"):
        _, answer = await asked(stack, control=f"{stage}, sentences")
        assert shown(answer)["d"] == {"title": ["<em>One shoe here.</em>"]}


async def test_a_page_has_its_limit(make_stack: MakeStack) -> None:
    many = [f"o{n:03}" for n in range(150)]
    index = ScriptedIndex(own=many, expanded=many, near=[], compared=[], titles=dict.fromkeys(many, "Bread. Wine."))
    stack = await make_stack(index)

    _, answer = await asked(stack, {**HIGHLIGHTED, "size": 150}, control="hybrid, sentences")

    with_sentences = ["highlight" in hit for hit in answer["hits"]["hits"]]
    assert with_sentences == [True] * (MAX_READ // 2) + [False] * (150 - MAX_READ // 2)


@pytest.mark.parametrize("control", ["hybrid, sentences", "hybrid, sentences, explain, passage"])
async def test_a_document_with_half_a_surrogate_pair_gets_a_sentence(make_stack: MakeStack, control: str) -> None:
    stack = await make_stack(ScriptedIndex(titles={"d": "Bread. A shoe \ud83d."}))

    _, answer = await asked(stack, control=control)

    assert shown(answer)["d"]["title"] == ["<em>A shoe \ufffd.</em>"]


async def test_hits_that_got_a_sentence_are_counted(make_stack: MakeStack) -> None:
    stack = await make_stack(ScriptedIndex(**INDEX))

    _, _, answer = await search(stack, HIGHLIGHTED, x_bridge="hybrid, sentences")
    async with stack.client.get(f"{stack.proxy.admin_url}/_bridge/metrics") as exposition:
        metrics = await exposition.text()

    n_sentences = sum("highlight" in hit for hit in answer["hits"]["hits"]) - len(OWN)
    assert f"bridge_proxy_sentences_total {n_sentences}.0" in metrics
