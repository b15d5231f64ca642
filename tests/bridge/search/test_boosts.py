"""The application's own boosts are read apart from its words, and turned into lifts and pins."""

import json
import math
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.profile import IndexProfile, ModelReference
from bridge.records import Hit
from bridge.search import json_tree
from bridge.search.boosts import MAX_PINS, Boosts, boosts_alone, level_of, words_alone
from bridge.search.json_tree import Json
from bridge.search.request import SearchRequest, parse

PROFILE = IndexProfile(text_fields=["title", "body"], encoder=ModelReference("toy", "0" * 12), dimension=2)
MATCH = {"match": {"title": "red shoe"}}
PHRASE = {"match_phrase": {"body": "red shoe"}}
BRAND = {"term": {"brand": {"value": "acme", "boost": 3}}}
PUBLIC = {"term": {"public": True}}
SAME = {"constant_score": {"filter": {"match_all": {}}, "boost": 5.0}}
FUNCTIONS = [{"field_value_factor": {"field": "sales", "modifier": "log1p"}}]


def understood(query: Json) -> SearchRequest:
    request = parse(json.dumps({"query": query}).encode(), "", text_fields=["title", "body"], object_field="_neural")
    assert isinstance(request, SearchRequest)
    return request


def written(body: Json) -> Json:
    return json.loads(json_tree.write(body))


def hits(*scores: float) -> list[Hit]:
    return [Hit("i", f"d{n}", score) for n, score in enumerate(scores)]


QUERIES: dict[str, tuple[Json, Json, Json]] = {
    "functions": (
        {"function_score": {"query": {"bool": {"must": [MATCH], "filter": PUBLIC}}, "functions": FUNCTIONS}},
        MATCH,
        {
            "function_score": {
                "query": {"bool": {"must": [SAME], "filter": PUBLIC, "should": []}},
                "functions": FUNCTIONS,
            }
        },
    ),
    "a boosted brand and a phrase beside the words": (
        {"bool": {"must": MATCH, "should": [PHRASE, BRAND], "minimum_should_match": 1}},
        MATCH,
        {"bool": {"must": SAME, "should": [BRAND]}},
    ),
    "all of them optional": (
        {"bool": {"should": [MATCH, BRAND, PHRASE]}},
        {"bool": {"should": [MATCH, PHRASE]}},
        {"bool": {"should": [SAME, BRAND]}},
    ),
    "a negative boost": (
        {"boosting": {"positive": MATCH, "negative": PUBLIC, "negative_boost": 0.2}},
        MATCH,
        {"boosting": {"positive": SAME, "negative": PUBLIC, "negative_boost": 0.2}},
    ),
    "a ranking feature that is required": (
        {"bool": {"must": [{"rank_feature": {"field": "fame"}}, MATCH]}},
        MATCH,
        {"bool": {"must": [{"rank_feature": {"field": "fame"}}, SAME], "should": []}},
    ),
}


@pytest.mark.parametrize("name", QUERIES)
def test_words_and_boosts_are_asked_apart(name: str) -> None:
    query, words, boosts = QUERIES[name]
    request = understood(query)

    assert request.clause.boosted
    assert written(words_alone(request, PROFILE))["query"]["bool"]["must"] == [words]
    asked = written(boosts_alone(request, PROFILE, [("i", "d0")], 5.0))
    assert asked["query"]["bool"]["must"] == [boosts]
    assert asked["size"] == 1


@pytest.mark.parametrize(
    "query",
    [
        MATCH,
        {"bool": {"must": [MATCH], "filter": [BRAND], "must_not": PUBLIC}},
        {"bool": {"must": [MATCH, PUBLIC], "should": PHRASE}},
        {"bool": {"should": [MATCH, PHRASE]}},
        {"function_score": {"query": MATCH, "weight": 3}},
        {"dis_max": {"queries": [MATCH, PHRASE]}},
    ],
)
def test_words_and_conditions_are_no_boosts(query: Json) -> None:
    assert not understood(query).clause.boosted


def test_words_are_worth_what_the_best_documents_get_for_them() -> None:
    assert level_of(hits(6.0, 3.0)) == 4.5
    assert level_of([]) == level_of(hits(0.0)) == 1.0


def test_a_document_far_above_what_words_can_give_is_pinned_in_the_applications_order() -> None:
    words, own = hits(10.0, 8.0), [Hit("i", doc_id, 9.0) for doc_id in ("d2", "d0", "d1")]
    boosted = [Hit("i", "d0", 109.0), Hit("i", "d2", 1009.0), Hit("i", "d1", 12.0), *hits(9.0)[1:], Hit("i", "d3", 9.0)]

    boosts = Boosts.read(words, [*boosted, Hit("i", "d4", 9.0)], own, 1.0)

    assert boosts.pinned == [("i", "d2"), ("i", "d0")]
    assert boosts.lifts is not None
    assert boosts.lifts.keys() == {("i", "d1"), ("i", "d3"), ("i", "d4")}
    assert boosts.lifts["i", "d3"] < boosts.lifts["i", "d1"]


def test_a_kind_of_documents_is_lifted_and_not_pinned() -> None:
    ads = [Hit("i", f"ad{n}", 1009.0) for n in range(MAX_PINS + 1)]
    others = [Hit("i", f"d{n}", 9.0) for n in range(60)]

    boosts = Boosts.read(hits(10.0), [*ads, *others], ads, 1.0)

    assert boosts.pinned == []
    assert boosts.lifts is not None
    assert boosts.lifts["i", "d0"] == 0.0
    assert 0.8 < boosts.lifts["i", "ad0"] < 1.0


def test_without_an_answer_there_is_no_boost() -> None:
    assert Boosts.read(hits(10.0), [], hits(5.0), 1.0) == Boosts((), None)


@given(st.lists(st.floats(0, 1e38), min_size=1, max_size=30), st.floats(0.1, 1))
def test_lifts_are_bounded_and_in_the_order_of_the_scores(scores: Sequence[float], share: float) -> None:
    boosted = hits(*scores)

    lifts = Boosts.read(hits(10.0), boosted, [], share).lifts

    assert lifts is not None
    assert all(-share <= lift <= share for lift in lifts.values())
    ordered = sorted(boosted, key=lambda hit: hit.score)
    for lower, higher in pairwise(ordered):
        assert lifts[lower.key] <= lifts[higher.key]
        if higher.score > 1.001 * lower.score and math.isfinite(math.log(higher.score / (lower.score or 1))):
            assert lifts[lower.key] < lifts[higher.key]
