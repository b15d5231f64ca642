import random
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.profile import PassageSettings
from bridge.records import Hit
from bridge.search import beside
from tests.bridge.search.test_legs import MATCH, PREDICTED, PROFILE, PUBLIC, WEIGHED, understood

REQUEST = understood({"query": {"bool": {"must": [MATCH], "filter": [PUBLIC], "must_not": [PUBLIC]}}})
HITS = [Hit("docs", "a", 2.5), Hit("docs", "b", 0.0)]


def test_candidates_are_asked_for_without_the_applications_conditions_and_without_texts() -> None:
    for body in (
        beside.expansion(REQUEST, PROFILE, size=7),
        beside.vector(PROFILE, [1.0, 0.0], size=7),
        beside.sparse(WEIGHED, {"shoe": 2.0}, size=7),
    ):
        assert "public" not in str(body)
        assert (body["size"], body["stored_fields"]) == (7, "_none_")
        assert body["docvalue_fields"] == ["_neural.id", "_neural.stamp"]


def test_predicted_queries_alone_score_a_candidate() -> None:
    rescore = beside.expansion(REQUEST, PROFILE, size=7)["rescore"]

    assert rescore["query"] == {"rescore_query": PREDICTED, "query_weight": 0, "rescore_query_weight": 1}
    assert rescore["window_size"] == 7


def test_among_documents_each_is_compared() -> None:
    only = [{"ids": {"values": ["a", "b"]}}]

    assert beside.expansion(REQUEST, PROFILE, size=2, among=["a", "b"])["query"]["bool"]["filter"] == only
    compared = beside.vector(PROFILE, [1.0, 0.0], size=2, among=["a", "b"])["query"]["bool"]
    assert compared["filter"] == only
    assert "knn_score" in str(compared["must"])
    weighed = beside.sparse(WEIGHED, {"shoe": 2.0}, size=2, among=["a", "b"])["query"]["bool"]
    assert weighed["filter"] == only
    assert "_neural.terms.shoe" in str(weighed["must"])


@pytest.mark.parametrize("leg", ["expansion", "vector", "sparse"])
def test_an_admission_has_all_conditions_and_shows_texts(leg: str) -> None:
    body = beside.admission(REQUEST, PROFILE, leg, HITS)

    assert body["_source"] == {"includes": PROFILE.text_fields}
    query = body["query"]["bool"]
    assert (query["filter"], query["must_not"]) == ([PUBLIC], [PUBLIC])


@pytest.mark.parametrize("leg", ["expansion", "vector"])
def test_an_admission_of_a_collapsed_search_asks_for_groups(leg: str) -> None:
    request = understood({"query": MATCH, "collapse": {"field": "brand"}})

    body = beside.admission(request, PROFILE, leg, HITS)

    assert (body["docvalue_fields"], "collapse" in body) == (["brand"], False)
    assert "brand" not in str(beside.expansion(request, PROFILE, size=7))


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        ({}, {"_source": True}),
        ({"_source": True, "version": True}, {"_source": True, "version": True}),
        ({"_source": ["title", "body", "price"]}, {"_source": ["title", "body", "price"]}),
        ({"_source": {"includes": ["body", "title"]}}, {"_source": {"includes": ["body", "title"]}}),
    ],
)
def test_an_admission_shows_hits_as_the_application_wants_them(shown: dict[str, Any], expected: dict[str, Any]) -> None:
    presentation = beside.presentation(understood({"query": MATCH, **shown}), PROFILE)

    assert presentation == expected
    for leg in ("expansion", "vector"):
        body = beside.admission(REQUEST, PROFILE, leg, HITS, shown=presentation)
        assert body == {**beside.admission(REQUEST, PROFILE, leg, HITS), **expected}


@pytest.mark.parametrize(
    "body",
    [
        {"_source": False},
        {"_source": ["title"]},
        {"_source": {"includes": ["title", "body"], "excludes": ["price"]}},
        {"highlight": {"fields": {"title": {}}}},
        {"fields": ["price"]},
        {"explain": True},
        {"query": {"match": {"title": {"query": "rain", "_name": "words"}}}},
        {"post_filter": {"term": {"public": {"value": True, "_name": "open"}}}},
        {"query": {"bool": {"must": MATCH, "filter": {"nested": {"path": "a", "query": PUBLIC, "inner_hits": {}}}}}},
    ],
)
def test_other_hits_are_shown_by_a_search_of_their_own(body: dict[str, Any]) -> None:
    assert beside.presentation(understood({"query": MATCH, **body}), PROFILE) is None


def test_hits_that_the_url_changes_are_shown_by_a_search_of_their_own() -> None:
    request = replace(understood({"query": MATCH}), url_presentation={"_source_includes": "title"})

    assert beside.presentation(request, PROFILE) is None


def test_an_admission_of_texts_has_a_clause_for_each_score() -> None:
    body = beside.admission(REQUEST, PROFILE, "expansion", HITS)

    scored: dict[str, Any] = {"constant_score": {"filter": {"ids": {"values": ["a"]}}, "boost": 2.5}}
    assert body["query"]["bool"]["must"] == [{"bool": {"should": [MATCH, {"bool": {"should": [scored]}}]}}]


@given(st.sets(st.integers(0, 199)), st.randoms(use_true_random=False))
def test_an_admission_of_vectors_has_few_clauses_and_loses_no_order(dropped: set[int], chance: random.Random) -> None:
    candidates = [Hit("docs", str(n), 1 - n / 1000) for n in range(200)]
    body = beside.admission(REQUEST, PROFILE, "vector", candidates)
    [must] = body["query"]["bool"]["must"]
    clauses = [clause["constant_score"] for clause in must["bool"]["should"]]
    assert len(clauses) < 40

    scores = {doc_id: clause["boost"] for clause in clauses for doc_id in ids_in(clause["filter"])}
    returned = [Hit("docs", str(n), scores[str(n)]) for n in range(200) if n not in dropped]
    # Within a clause the cluster may return any order, and cut it anywhere.
    chance.shuffle(returned)
    returned = sorted(returned, key=lambda hit: -hit.score)[: body["size"]]

    expected = [hit for n, hit in enumerate(candidates) if n not in dropped][: PROFILE.window]
    assert beside.in_order(PROFILE, candidates, returned) == expected


def ids_in(query: Any) -> list[str]:
    [of_index] = query["bool"]["should"]
    [_, ids] = of_index["bool"]["filter"]
    return list(ids["ids"]["values"])


def test_an_admission_to_several_indices_keeps_their_documents_apart() -> None:
    body = beside.admission(REQUEST, PROFILE, "expansion", [Hit("docs", "a", 2.5), Hit("more", "a", 1.5)])

    must = body["query"]["bool"]["must"][0]["bool"]["should"][1]
    expected = {"docs": 2.5, "more": 1.5}
    assert [each["bool"]["filter"] for each in must["bool"]["should"]] == [[{"term": {"_index": i}}] for i in expected]
    scored = [each["bool"]["should"][0]["constant_score"] for each in must["bool"]["should"]]
    assert [each["boost"] for each in scored] == list(expected.values())


def test_an_entry_names_the_texts_that_it_was_made_of() -> None:
    assert beside.made_of({"_neural.stamp": ["recipe.texts"]}, PROFILE) == "texts"
    assert beside.made_of({"_neural.stamp": ["recipe.texts.body"]}, PROFILE) == "texts"
    assert beside.made_of({"_neural.stamp": ["s"]}, PROFILE) == beside.made_of({}, PROFILE) == ""


def test_an_admission_of_nothing_admits_nothing() -> None:
    assert beside.admission(REQUEST, PROFILE, "vector", [])["query"]["bool"]["must"] == [{"match_none": {}}]


def test_the_matching_documents_are_those_of_the_conditions_alone() -> None:
    assert beside.matching(REQUEST)["query"] == {"bool": {"filter": [PUBLIC], "must_not": [PUBLIC]}}
    assert beside.matching(understood({"query": MATCH}))["query"] == {"match_all": {}}
    beyond = beside.beyond_matching(REQUEST)
    assert (beyond["from"], beyond["size"]) == (beside.matching(REQUEST)["size"], 1)


def test_candidates_are_more_than_a_window_and_no_more_than_clusters_take_clauses() -> None:
    both = ("expansion", "vector")
    assert [beside.n_candidates(PROFILE, leg, allowed=False) for leg in both] == [150, 150]
    assert [beside.n_candidates(PROFILE, leg, allowed=True) for leg in both] == [150, 75]
    wide = msgspec.structs.replace(PROFILE, window=5_000)
    assert beside.n_candidates(wide, "vector", allowed=True) == beside.MAX_CANDIDATES
    assert beside.n_more(PROFILE, 150, 25) == 450
    assert beside.n_more(PROFILE, 150, 0) == beside.MAX_CANDIDATES


def test_nested_passages_are_compared_too() -> None:
    nested = msgspec.structs.replace(PROFILE, passages=PassageSettings(layout="nested"))
    assert "nested" in str(beside.vector(nested, [1.0, 0.0], size=2, among=["a"]))
