import json
from dataclasses import replace
from typing import Any, Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.profile import IndexProfile, ModelReference, PassageSettings, SparseSettings
from bridge.search import legs
from bridge.search.request import Repair, SearchRequest, parse

PROFILE = IndexProfile(
    text_fields=["title", "body"],
    encoder=ModelReference("toy", "0" * 12),
    generator=ModelReference("toy", "1" * 12),
    dimension=2,
    window=50,
    expansion_boost=0.5,
)
WEIGHED = msgspec.structs.replace(PROFILE, sparse=SparseSettings(ModelReference("toy", "2" * 12)))
PREDICTED = {"match": {"_neural.predicted_queries": {"query": "red shoe", "boost": 0.5}}}
MATCH: dict[str, Any] = {"match": {"title": "red shoe"}}
PUBLIC: dict[str, Any] = {"term": {"public": True}}


def understood(body: dict[str, Any]) -> SearchRequest:
    request = parse(json.dumps(body).encode(), "", text_fields=["title", "body"], object_field="_neural")
    assert isinstance(request, SearchRequest)
    return request


def test_expansion_leg_lets_documents_match_by_their_predicted_queries() -> None:
    assert legs.expansion(understood({"query": MATCH}), PROFILE) == {
        "size": 50,
        "_source": False,
        "track_total_hits": False,
        "query": {"bool": {"should": [MATCH, PREDICTED]}},
    }


MEANT = Repair("red shoes", {"shoe": "shoes"})
FORMS: dict[str, tuple[Any, Any]] = {
    "one clause": (MATCH, {"dis_max": {"queries": [MATCH, {"match": {"title": "red shoes"}}]}}),
    "one clause among conditions": (
        {"bool": {"must": [MATCH, PUBLIC]}},
        {"bool": {"must": [{"dis_max": {"queries": [MATCH, {"match": {"title": "red shoes"}}]}}, PUBLIC]}},
    ),
    "several clauses": (
        {"bool": {"should": [MATCH, {"match_phrase": {"title": {"query": "red shoe"}}}], "minimum_should_match": 1}},
        {
            "bool": {
                "should": [
                    {
                        "dis_max": {
                            "queries": [
                                {
                                    "bool": {
                                        "should": [MATCH, {"match_phrase": {"title": {"query": "red shoe"}}}],
                                        "minimum_should_match": 1,
                                    }
                                },
                                {
                                    "bool": {
                                        "should": [
                                            {"match": {"title": "red shoes"}},
                                            {"match_phrase": {"title": {"query": "red shoes"}}},
                                        ],
                                        "minimum_should_match": 1,
                                    }
                                },
                            ]
                        }
                    }
                ],
                "minimum_should_match": 1,
            }
        },
    ),
    "inner hits, which an answer has once": (
        {"nested": {"path": "title", "query": MATCH, "inner_hits": {}}},
        {
            "dis_max": {
                "queries": [
                    {"nested": {"path": "title", "query": MATCH, "inner_hits": {}}},
                    {"nested": {"path": "title", "query": {"match": {"title": "red shoes"}}}},
                ]
            }
        },
    ),
}


@pytest.mark.parametrize("name", FORMS)
def test_text_legs_search_both_forms_of_repaired_words_and_count_the_better(name: str) -> None:
    query, both = FORMS[name]
    request = understood({"query": query})
    repaired = replace(request, repair=MEANT)
    assert legs.lexical(repaired, PROFILE)["query"] == both
    assert legs.lexical(request, PROFILE)["query"] == repaired.query == query
    assert '"query": "red shoes", "boost": 0.5' in json.dumps(legs.expansion(repaired, PROFILE))


def test_predicted_queries_are_scored_together_with_the_text_where_the_cluster_can() -> None:
    together = msgspec.structs.replace(PROFILE, expanded_fields=["title", "body"], expansion_boost=2.0)
    fields = ["title", "body", "_neural.predicted_queries"]
    assert legs.expansion(understood({"query": MATCH}), together)["query"]["bool"]["should"] == [
        MATCH,
        {"combined_fields": {"query": "red shoe", "boost": 2.0, "fields": fields}},
    ]


def test_sparse_leg_finds_documents_by_their_terms_among_those_that_the_conditions_allow() -> None:
    request = understood({"query": {"bool": {"must": [MATCH], "filter": [PUBLIC]}}, "post_filter": PUBLIC})
    assert legs.sparse(request, WEIGHED, {"shoe": 2.0, "##s": 0.5}) == {
        "size": 50,
        "_source": False,
        "track_total_hits": False,
        "query": {
            "bool": {
                "must": [
                    {
                        "bool": {
                            "should": [
                                {"rank_feature": {"field": "_neural.terms.shoe", "linear": {}, "boost": 2.0}},
                                {"rank_feature": {"field": "_neural.terms.##s", "linear": {}, "boost": 0.5}},
                            ]
                        }
                    }
                ],
                "filter": [PUBLIC, PUBLIC],
            }
        },
    }


def test_matching_terms_are_explained_for_the_documents_in_question_alone() -> None:
    body = legs.matching_terms(WEIGHED, [("docs", "a")], {"shoe": 2.0})
    assert (body["explain"], body["size"]) == (True, 1)
    assert body["query"]["bool"]["filter"] == [legs.documents([("docs", "a")])]
    assert "_neural.terms.shoe" in json.dumps(body["query"]["bool"]["must"])


def test_conditions_of_alternatives_hold_for_predicted_queries_too() -> None:
    one, other = ({"term": {"kind": kind}} for kind in ("post", "page"))
    alternatives = [{"bool": {"must": [MATCH], "filter": [kind]}} for kind in (one, other)]
    request = understood({"query": {"bool": {"should": alternatives}}})
    either = {"bool": {"should": [{"bool": {"filter": [kind]}} for kind in (one, other)], "minimum_should_match": 1}}

    expansion = legs.expansion(request, PROFILE)["query"]
    vector = legs.vector(request, PROFILE, [1.0, 0.0])["query"]

    assert expansion["bool"]["should"] == [
        {"bool": {"should": alternatives}},
        {"bool": {"must": [PREDICTED], "filter": [either]}},
    ]
    assert vector["bool"]["must"][0]["knn"]["_neural.embedding"]["filter"] == {"bool": {"filter": [either]}}


def test_expansion_leg_keeps_everything_around_the_words() -> None:
    query = {"bool": {"must": [PUBLIC, MATCH], "filter": [PUBLIC], "must_not": [PUBLIC], "boost": 2}}

    leg = legs.expansion(understood({"query": query, "post_filter": PUBLIC, "min_score": 1}), PROFILE)

    assert leg["query"]["bool"] == {**query["bool"], "must": [PUBLIC, {"bool": {"should": [MATCH, PREDICTED]}}]}
    assert leg["post_filter"] == PUBLIC
    assert leg["min_score"] == 1


def test_expansion_leg_keeps_the_minimum_of_a_should_among_its_own_clauses() -> None:
    body = {"match": {"body": "red shoe"}}
    query = {"bool": {"should": [MATCH, body], "minimum_should_match": 2, "filter": [PUBLIC]}}

    leg = legs.expansion(understood({"query": query}), PROFILE)

    assert leg["query"]["bool"] == {
        "should": [{"bool": {"should": [MATCH, body], "minimum_should_match": 2}}, PREDICTED],
        "minimum_should_match": 1,
        "filter": [PUBLIC],
    }


def test_vector_leg_holds_all_conditions_inside_the_nearest_neighbour_query() -> None:
    query = {"bool": {"must": [MATCH, {"range": {"year": {"gte": 2020}}}], "filter": PUBLIC, "must_not": [PUBLIC]}}

    leg = legs.vector(understood({"query": query, "post_filter": {"term": {"x": 1}}}), PROFILE, [1.0, 0.0])

    [clause] = leg["query"]["bool"]["must"]
    nearest = clause["knn"]["_neural.embedding"]
    assert nearest["k"] == 100
    assert nearest["filter"] == {
        "bool": {"filter": [PUBLIC, {"range": {"year": {"gte": 2020}}}, {"term": {"x": 1}}], "must_not": [PUBLIC]}
    }


def test_vector_leg_asks_for_the_best_passage_where_documents_have_several() -> None:
    profile = msgspec.structs.replace(PROFILE, passages=PassageSettings(layout="nested"))

    leg = legs.vector(understood({"query": MATCH}), profile, [1.0, 0.0])

    assert leg["query"]["nested"]["path"] == "_neural.passages"
    assert leg["query"]["nested"]["score_mode"] == "max"
    [clause] = leg["query"]["nested"]["query"]["bool"]["must"]
    assert "_neural.passages.embedding" in clause["knn"]


@pytest.mark.parametrize("layout", ["single", "nested"])
@pytest.mark.parametrize("vector_type", ["knn_vector", "dense_vector"])
def test_vector_leg_asks_whether_the_caller_may_see_the_vectors(
    layout: Literal["single", "nested"], vector_type: Literal["knn_vector", "dense_vector"]
) -> None:
    profile = msgspec.structs.replace(PROFILE, passages=PassageSettings(layout=layout), vector_type=vector_type)

    query = legs.vector(understood({"query": MATCH}), profile, [1.0, 0.0])["query"]

    beside = (query["nested"]["query"] if layout == "nested" else query)["bool"]["filter"]
    assert beside == [{"exists": {"field": profile.embedding_field}}]


@pytest.mark.parametrize("layout", ["single", "nested"])
def test_full_comparison_meets_the_same_conditions(layout: Literal["single", "nested"]) -> None:
    profile = msgspec.structs.replace(PROFILE, passages=PassageSettings(layout=layout))
    query = {"bool": {"must": [MATCH], "filter": PUBLIC, "must_not": [PUBLIC]}}

    leg = legs.exact_vector(understood({"query": query}), profile, [1.0, 0.0])

    assert leg["query"]["bool"]["filter"] == [PUBLIC]
    assert leg["query"]["bool"]["must_not"] == [PUBLIC]
    assert ("nested" in leg["query"]["bool"]["must"][0]) is (layout == "nested")


def test_shown_hits_keep_the_presentation_and_the_query_for_highlights() -> None:
    request = understood({"query": MATCH, "highlight": {"fields": {"title": {}}}, "aggs": {"n": {}}, "_source": False})

    body = legs.shown(request, [("docs", "1"), ("other", "1"), ("docs", "2")])

    assert body["highlight"] == {"fields": {"title": {}}}
    assert body["_source"] is False
    assert "aggs" not in body
    assert body["query"]["bool"]["should"] == [MATCH]
    assert body["size"] == 3


@pytest.mark.case("P58")
def test_what_the_nearest_neighbour_query_lets_through_meets_the_conditions_all_the_same() -> None:
    query = {"bool": {"must": [MATCH], "must_not": [PUBLIC]}}

    leg = legs.vector(understood({"query": query}), PROFILE, [1.0, 0.0])

    assert leg["post_filter"] == {"bool": {"must_not": [PUBLIC]}}
    assert "post_filter" not in legs.vector(understood({"query": MATCH}), PROFILE, [1.0, 0.0])


@pytest.mark.case("P58")
def test_shown_hits_meet_the_conditions_of_the_moment() -> None:
    nested = {"nested": {"path": "x", "query": PUBLIC, "inner_hits": {}}}
    query = {"bool": {"must": [MATCH], "filter": [PUBLIC, nested], "must_not": [PUBLIC]}}

    body = legs.shown(understood({"query": query, "post_filter": PUBLIC}), [("docs", "1")])

    conditions = body["query"]["bool"]["filter"][1]["bool"]
    assert conditions == {
        "filter": [PUBLIC, {"nested": {"path": "x", "query": PUBLIC}}],
        "must_not": [PUBLIC],
    }
    assert body["post_filter"] == PUBLIC
    assert body["query"]["bool"]["should"] == [query]


BY_BRAND: dict[str, Any] = {"field": "brand", "inner_hits": {"name": "all"}, "max_concurrent_group_searches": 2}
COLLAPSED: dict[str, Any] = {"query": MATCH, "collapse": BY_BRAND, "post_filter": PUBLIC, "_source": ["title"]}


def test_legs_of_a_collapsed_search_ask_for_groups_and_do_not_collapse() -> None:
    request = understood(COLLAPSED)
    coded = msgspec.structs.replace(PROFILE, codes="sign")

    for body in (
        legs.lexical(request, PROFILE),
        legs.expansion(request, PROFILE),
        legs.vector(request, PROFILE, [1.0, 0.0]),
        legs.exact_vector(request, PROFILE, [1.0, 0.0]),
    ):
        assert body["docvalue_fields"] == ["brand"]
        assert "collapse" not in body
        once = legs.coded(body, coded)
        assert once["docvalue_fields"] == ["brand", "_neural.code"]
        assert legs.coded(once, coded) == once


def test_hits_of_a_collapsed_search_are_shown_as_heads() -> None:
    body = legs.shown(understood(COLLAPSED), [("docs", "1")])

    assert (body["collapse"], body["_source"]) == ({"field": "brand"}, ["title"])


def test_groups_are_expanded_as_the_applications_query_expands_them() -> None:
    request = understood({**COLLAPSED, "query": {"bool": {"must": [MATCH], "filter": [PUBLIC]}}})
    assert request.collapse is not None
    groups = {"bool": {"should": [{"terms": {"brand": ["acme"]}}]}}

    matching, allowed = (
        legs.groups_expanded(request, request.collapse, ["acme"], matching=matching) for matching in (True, False)
    )

    assert matching["query"] == {"bool": {"must": [request.query], "filter": [groups]}}
    assert allowed["query"] == {"bool": {"filter": [groups, {"bool": {"filter": [PUBLIC]}}], "should": [request.query]}}
    for body in (matching, allowed):
        assert (body["collapse"], body["post_filter"], body["size"]) == (BY_BRAND, PUBLIC, 1)


def test_the_tail_of_a_collapsed_search_is_of_groups_too() -> None:
    request = understood(COLLAPSED)
    assert request.collapse is not None
    without = request.collapse.clause(["acme", None])

    body = legs.tail(request, without=without, start=0, size=5)

    assert (body["collapse"], body["query"]["bool"]["must_not"]) == (BY_BRAND, [without])


def test_tail_leaves_out_the_ranking_and_keeps_conditions() -> None:
    body = legs.tail(
        understood({"query": MATCH, "post_filter": PUBLIC, "min_score": 2}),
        without=legs.documents([("docs", "1")]),
        start=3,
        size=7,
    )

    assert (body["from"], body["size"], body["post_filter"], body["min_score"]) == (3, 7, PUBLIC, 2)
    assert body["query"]["bool"]["must"] == [MATCH]


def test_numbers_of_the_application_reach_the_legs_as_they_were() -> None:
    raw = (
        b'{"query":{"bool":{"must":{"match":{"title":"red shoe"}},'
        b'"filter":{"range":{"n":{"gte":12345678901234567890123,"lt":1.10000000000000000001}}}}}}'
    )
    request = parse(raw, "", text_fields=["title"], object_field="_neural")
    assert isinstance(request, SearchRequest)

    body = legs.msearch([legs.expansion(request, PROFILE)], {})

    assert b'{"gte":12345678901234567890123,"lt":1.10000000000000000001}' in body


@pytest.mark.case("P25")
@given(st.text(min_size=1, max_size=200))
def test_words_never_become_anything_but_words(words: str) -> None:
    request = parse(
        json.dumps({"query": {"match": {"title": words}}}).encode(), "", text_fields=["title"], object_field="_neural"
    )
    if not isinstance(request, SearchRequest):
        return

    lines = legs.msearch([legs.expansion(request, PROFILE), legs.vector(request, PROFILE, [0.0, 1.0])], {}).split(b"\n")

    assert len(lines) == 5
    alternatives = json.loads(lines[1])["query"]["bool"]["should"]
    assert alternatives == [
        {"match": {"title": words}},
        {"match": {"_neural.predicted_queries": {"query": words, "boost": 0.5}}},
    ]
    [nearest] = json.loads(lines[3])["query"]["bool"]["must"]
    assert nearest == {"knn": {"_neural.embedding": {"vector": [0.0, 1.0], "k": 100}}}
