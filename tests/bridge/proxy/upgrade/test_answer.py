"""Answers hold the ranking in the shape that the application expects."""

import json
from typing import Any

import msgspec
import pytest

from bridge.profile import (
    META_KEY,
    FusionSettings,
    PassageSettings,
)
from tests.bridge.proxy.conftest import MakeStack, Stack
from tests.bridge.proxy.scripted_index import PROFILE, QUERY, WEIGHED, ScriptedIndex, kind_of_search
from tests.bridge.proxy.searching import ids, scores, search
from tests.fake_cluster import Received, Reply, reply_json


async def test_our_fields_are_hidden_unless_asked_for(make_stack: MakeStack) -> None:
    stack = await make_stack(ScriptedIndex())

    _, _, hidden = await search(stack)
    _, _, asked = await search(stack, {**QUERY, "_source": ["title", "_neural.stamp"]})

    assert all("_neural" not in hit["_source"] for hit in hidden["hits"]["hits"])
    assert all("_neural" in hit["_source"] for hit in asked["hits"]["hits"])


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


async def test_an_explanation_names_the_neighbours_of_a_smoothed_document(make_stack: MakeStack) -> None:
    coded = msgspec.structs.replace(PROFILE, codes="sign", fusion=FusionSettings(method="rrf", smoothing=0.5))
    stack = await make_stack(ScriptedIndex(profile=coded, codes={"a": "8A==", "d": "8A=="}))

    _, mark, answer = await search(stack, x_bridge="smoothing, explain")

    assert mark.startswith("hybrid+smoothing; took")
    told = {hit["_id"]: hit["_bridge"] for hit in answer["hits"]["hits"]}
    neighbour = {"_index": "docs", "_id": "d", "share": 0.5}
    assert told["a"]["smoothed"]["neighbours"] == [neighbour]
    assert told["a"]["smoothed"]["before"] > told["a"]["fused_score"] == told["d"]["fused_score"]
    assert "smoothed" not in told["b"]
    _, plain, _ = await search(stack, x_bridge="smoothing, smoothing=0")
    assert plain.startswith("hybrid; took")


async def test_an_explanation_names_the_terms_that_document_and_query_have_in_common(make_stack: MakeStack) -> None:
    """The query's only term weighs 2."""
    stack = await make_stack(ScriptedIndex(profile=WEIGHED, hidden=frozenset("a")))

    _, mark, answer = await search(stack, x_bridge="hybrid, explain")

    assert mark.startswith("hybrid; took")
    told = {hit["_id"]: hit["_bridge"] for hit in answer["hits"]["hits"]}
    assert told["f"]["legs"] == {"sparse": {"rank": 1, "score": 10.0}}
    assert told["f"]["terms"] == [{"term": "shoe", "query": 2.0, "document": 1.5, "score": 3.0}]
    assert "terms" not in told["a"]
    assert told["b"]["predicted_queries"] == ["what is b"]
    assert {"weigh", "legs"} <= answer["_bridge"]["timings_ms"].keys()


async def test_an_explanation_without_terms_is_still_given(make_stack: MakeStack) -> None:
    stack = await make_stack(ScriptedIndex(profile=WEIGHED, faults={"terms": Reply(500, b"{}")}))

    _, mark, answer = await search(stack, x_bridge="hybrid, explain")

    assert mark.startswith("hybrid; degraded=explain_unavailable")
    assert all("legs" in hit["_bridge"] and "terms" not in hit["_bridge"] for hit in answer["hits"]["hits"])


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


OF_OWN = {"n": {"value": 3}}
AGGREGATED = {**QUERY, "aggs": {"n": {"value_count": {"field": "n"}}}}


async def test_what_the_bridge_found_is_aggregated_too_where_that_is_asked_for(make_stack: MakeStack) -> None:
    stack = await make_stack(ScriptedIndex())

    _, _, answer = await search(stack, AGGREGATED, x_bridge="hybrid, facets")
    _, _, plain = await search(stack, AGGREGATED, x_bridge="hybrid")
    _, _, without = await search(stack, x_bridge="hybrid, facets")

    assert (answer["aggregations"], answer["_bridge"]) == (OF_OWN, {"aggregations": {"n": {"value": 5}}})
    assert plain["aggregations"] == OF_OWN
    assert "_bridge" not in plain
    assert "_bridge" not in without


async def test_what_the_bridge_found_is_aggregated_whatever_the_least_score(make_stack: MakeStack) -> None:
    stack = await make_stack(ScriptedIndex())

    await search(stack, {**AGGREGATED, "min_score": 1.5}, x_bridge="hybrid, facets")

    [asked] = [body for body in own_searches(stack) if kind_of_search(body) == "aggregated"]
    own, found = asked["query"]["bool"]["should"]
    assert (own, found["constant_score"]["boost"], asked["min_score"]) == (QUERY["query"], 1.5, 1.5)


async def test_without_the_facets_of_all_the_answer_is_still_given(make_stack: MakeStack) -> None:
    stack = await make_stack(ScriptedIndex(faults={"aggregated": Reply(500, b"{}")}))

    _, mark, answer = await search(stack, AGGREGATED, x_bridge="hybrid, facets")

    assert mark.startswith("hybrid; degraded=facets_unavailable")
    assert answer["aggregations"] == OF_OWN
    assert "_bridge" not in answer


NESTED = msgspec.structs.replace(PROFILE, passages=PassageSettings(layout="nested"))


async def test_the_winning_passage_is_a_highlight_where_that_is_asked_for(make_stack: MakeStack) -> None:
    index = ScriptedIndex(profile=NESTED, titles={"d": "bread. red shoe"}, passages={"d": [(7, 15)]})
    stack = await make_stack(index)

    _, _, answer = await search(stack, {**QUERY, "size": 1}, x_bridge="rerank, passage")
    _, _, plain = await search(stack, {**QUERY, "size": 1})

    assert [hit["highlight"] for hit in answer["hits"]["hits"]] == [{"_bridge.passage": ["red shoe"]}]
    assert "highlight" not in plain["hits"]["hits"][0]


def own_searches(stack: Stack) -> list[dict[str, Any]]:
    """The bodies that came to `_search`."""
    return [json.loads(request.body) for request in stack.cluster.requests("_search")]


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


async def test_an_explained_search_is_explained_by_cluster_and_bridge(make_stack: MakeStack) -> None:
    stack = await make_stack(ScriptedIndex())

    _, _, answer = await search(stack, {**QUERY, "explain": True}, x_bridge="hybrid")

    shown = [json.loads(request.body) for request in stack.cluster.requests("_search")]
    assert {body["explain"] for body in shown if kind_of_search(body) in ("own", "shown")} == {True}
    assert all(hit["_bridge"]["rank"] for hit in answer["hits"]["hits"])


@pytest.mark.parametrize("fault", [Reply(500, b"{}"), Reply(200, b"[]"), Reply(break_after=0)])
async def test_hits_that_cannot_be_shown_leave_the_own_answer(make_stack: MakeStack, fault: Reply) -> None:
    stack = await make_stack(ScriptedIndex(faults={"shown": fault}))

    status, mark, answer = await search(stack)

    assert status == 200
    assert mark.startswith("lexical; degraded=hits_unavailable")
    assert ids(answer) == ["a", "b", "c"]


HALF = {"a": "red \ud83d", "d": "red shoe \udc00", "e": "shoe"}


@pytest.mark.case("P54")
@pytest.mark.parametrize("parameters", ["", "?pretty=true", "?filter_path=hits.hits._id,hits.hits._source"])
@pytest.mark.parametrize("control", ["rerank", "rerank, explain, passage"])
async def test_half_a_surrogate_pair_in_a_document_costs_nothing(
    make_stack: MakeStack, parameters: str, control: str
) -> None:
    stack = await make_stack(ScriptedIndex(titles=HALF))

    async with stack.client.post(
        f"{stack.proxy.url}/docs/_search{parameters}",
        data=json.dumps(QUERY),
        headers={"Content-Type": "application/json", "x-bridge": control},
    ) as response:
        mark, content = response.headers["X-Bridge"], await response.read()

    assert mark.startswith("hybrid+rerank; took_ms")
    assert ids(json.loads(content))[0] == "d"
    # The cluster's own bytes are given; the models read replacement characters.
    assert content.count(b"red \\ud83d") == content.count(b"red shoe \\udc00") == 1
    assert b"_neural" not in content
    [read] = [body["texts"] for path, body in stack.sidecar.received if path == "/rerank"]
    assert {"red \ufffd", "red shoe \ufffd"} < set(read)


@pytest.mark.case("P54")
async def test_an_answer_that_falls_back_is_still_without_our_object(make_stack: MakeStack) -> None:
    stack = await make_stack(ScriptedIndex(titles=HALF, faults={"shown": Reply(500, b"{}")}))

    _, mark, answer = await search(stack, {**QUERY, "size": 3}, target="/docs/_search?filter_path=hits.hits")

    assert "degraded=hits_unavailable" in mark
    assert answer["hits"]["hits"][0]["_source"] == {"title": "red \ud83d", "n": 1}


@pytest.mark.case("P54")
async def test_an_answer_that_is_not_understood_is_still_without_our_object(make_stack: MakeStack) -> None:
    odd = b'{"took":1,"hits":{"hits":[{"_index":"docs","_id":7,"_source":{"n":1,"_neural":{"stamp":"s"}}}]}}'
    stack = await make_stack(ScriptedIndex(faults={"own": Reply(body=odd)}))

    _, mark, answer = await search(stack, target="/docs/_search?filter_path=hits")

    assert "degraded=answer_not_understood" in mark
    assert answer == {"hits": {"hits": [{"_index": "docs", "_id": 7, "_source": {"n": 1}}]}}


@pytest.mark.case("P62")
@pytest.mark.parametrize(("n_indices", "stages"), [(1, "lexical; degraded=index_changed"), (2, "hybrid")])
async def test_an_alias_that_moves_meanwhile_mixes_no_two_indices(
    make_stack: MakeStack, n_indices: int, stages: str
) -> None:
    meta = {META_KEY: PROFILE.to_meta()}
    mappings = {f"docs-{n}": {"mappings": {"_meta": meta}} for n in range(n_indices)}
    moved = {"hits": {"hits": [{"_index": "docs-1", "_id": "x", "_score": 9.0}]}, "status": 200}
    stack = await make_stack(
        ScriptedIndex(faults={"_mapping": reply_json(mappings)}, legs={"vector": moved, "exact": moved})
    )

    _, mark, answer = await search(stack, x_bridge="hybrid")

    assert mark.rpartition("; took")[0] == stages
    if n_indices == 1:
        assert {hit["_index"] for hit in answer["hits"]["hits"]} == {"docs"}
        assert ids(answer) == ["a", "b", "c"]


# --- collapse ---------------------------------------------------------------------------------------------------


BRANDS = {"a": "x", "b": "x", "c": "y", "d": "y", "e": "z"}
"""The application's query matches none of brand z."""
COLLAPSED: dict[str, Any] = {
    **QUERY,
    "collapse": {"field": "brand", "inner_hits": {"name": "all", "size": 5}, "max_concurrent_group_searches": 2},
}


def heads(found: list[str], groups: dict[str, Any]) -> list[str]:
    """The first document of each group."""
    firsts = {groups.get(doc_id): doc_id for doc_id in reversed(found)}
    return [doc_id for doc_id in found if firsts[groups.get(doc_id)] == doc_id]


def inner(answer: Any) -> dict[str, list[str]]:
    """The inner hits of each head."""
    return {
        hit["_id"]: [each["_id"] for each in hit["inner_hits"]["all"]["hits"]["hits"]] for hit in answer["hits"]["hits"]
    }


async def test_a_collapsed_search_shows_the_best_of_each_group(make_stack: MakeStack) -> None:
    stack = await make_stack(ScriptedIndex(titles={"d": "red shoe"}, groups=BRANDS))
    _, _, plain = await search(stack, {**QUERY, "aggs": {"n": {"sum": {"field": "n"}}}})

    _, mark, answer = await search(stack, {**COLLAPSED, "aggs": {"n": {"sum": {"field": "n"}}}})

    assert mark.startswith("hybrid+rerank; took")
    assert ids(answer) == heads(ids(plain), BRANDS) == ["d", "a", "e"]
    assert [hit["fields"] for hit in answer["hits"]["hits"]] == [{"brand": [BRANDS[each]]} for each in ids(answer)]
    assert (answer["hits"]["total"], answer["aggregations"]) == (plain["hits"]["total"], plain["aggregations"])
    assert "_neural" not in json.dumps(answer)


async def test_inner_hits_are_those_of_the_applications_query(make_stack: MakeStack) -> None:
    """Of d's group the own answer shows c, with all inner hits; e's group has no document that the query matches."""
    stack = await make_stack(ScriptedIndex(titles={"d": "red shoe"}, groups=BRANDS))

    _, _, answer = await search(stack, COLLAPSED)

    assert inner(answer) == {"d": ["c"], "a": ["a", "b"], "e": ["e"]}
    expanding = [body for body in own_searches(stack) if kind_of_search(body) == "groups"]
    assert ["must" in body["query"]["bool"] for body in expanding] == [True, False]
    assert all(
        body["query"]["bool"]["filter"][0] == {"bool": {"should": [{"terms": {"brand": ["z"]}}]}} for body in expanding
    )


async def test_without_inner_hits_no_group_is_expanded(make_stack: MakeStack) -> None:
    stack = await make_stack(ScriptedIndex(groups=BRANDS))

    _, _, answer = await search(stack, {**QUERY, "collapse": {"field": "brand"}})

    assert sorted(BRANDS[doc_id] for doc_id in ids(answer)) == ["x", "y", "z"]
    assert not [body for body in own_searches(stack) if kind_of_search(body) == "groups"]


@pytest.mark.parametrize("size", [1, 2, 3, 7])
async def test_pages_show_every_group_once_inside_the_window_and_beyond(make_stack: MakeStack, size: int) -> None:
    own = [f"o{i}" for i in range(50)]
    groups: dict[str, Any] = {doc_id: f"g{i * 7 % 20}" for i, doc_id in enumerate(own) if i % 9} | {"x": "g3", "v1": 7}
    index = ScriptedIndex(
        own=own,
        expanded=[*own[2:6], "x", *own[6:]],
        near=["v1", "o3", "v2"],
        compared=["v1", "o3", "v2"],
        groups=groups,
    )
    stack = await make_stack(index)
    _, _, whole = await search(stack, {**COLLAPSED, "size": 40})

    pages: list[str] = []
    for start in range(0, 40, size):
        _, _, answer = await search(stack, {**COLLAPSED, "from": start, "size": size})
        pages += ids(answer)
        for doc_id, shown in inner(answer).items():
            matching = [each for each in own if groups.get(each) == groups.get(doc_id)]
            assert shown == (matching or [doc_id])[:5]

    assert pages == ids(whole)
    found = [groups.get(doc_id) for doc_id in pages]
    assert len(found) == len(set(found))
    assert set(found) == {groups.get(doc_id) for doc_id in own} | {7}


async def test_a_head_that_is_gone_is_left_out(make_stack: MakeStack) -> None:
    stack = await make_stack(ScriptedIndex(groups=BRANDS, hidden=frozenset("e")))

    _, _, answer = await search(stack, COLLAPSED)

    assert sorted(BRANDS[doc_id] for doc_id in ids(answer)) == ["x", "y"]


@pytest.mark.parametrize("kind", ["groups", "shown"])
async def test_groups_that_cannot_be_shown_leave_the_own_answer(make_stack: MakeStack, kind: str) -> None:
    stack = await make_stack(ScriptedIndex(groups=BRANDS, faults={kind: Reply(500, b"{}")}))

    _, mark, answer = await search(stack, COLLAPSED)

    assert mark.startswith("lexical; degraded=hits_unavailable")
    assert inner(answer) == {"a": ["a", "b"], "c": ["c"]}


async def test_totals_of_inner_hits_are_written_as_the_application_wants_them(make_stack: MakeStack) -> None:
    stack = await make_stack(ScriptedIndex(groups=BRANDS))

    await search(stack, COLLAPSED, target="/docs/_search?rest_total_hits_as_int=true")

    expanding = [
        each for each in stack.cluster.requests("_search") if kind_of_search(json.loads(each.body)) == "groups"
    ]
    assert expanding
    assert all("rest_total_hits_as_int=true" in request.target for request in expanding)


async def test_a_collapsed_template_and_filter_path_are_served(make_stack: MakeStack) -> None:
    stack = await make_stack(ScriptedIndex(titles={"d": "red shoe"}, groups=BRANDS, rendered=COLLAPSED))

    _, mark, answer = await search(
        stack,
        {"id": "mine"},
        target="/docs/_search/template?filter_path=hits.hits._id,hits.hits.inner_hits.all.hits.hits._id",
    )

    assert mark.startswith("hybrid+rerank; took")
    assert inner(answer) == {"d": ["c"], "a": ["a", "b"], "e": ["e"]}
    assert answer.keys() == {"hits"}
