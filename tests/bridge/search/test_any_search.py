"""Whatever comes as a search: it is understood, or left alone; and what is understood keeps the application's query.

The recognised shapes of `test_text_clause` stand in random surroundings, and are damaged at random places.
"""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.profile import IndexProfile, ModelReference
from bridge.search import legs
from bridge.search.json_tree import write
from bridge.search.reasons import CLAUSES, REASONS
from bridge.search.request import LeaveAlone, SearchRequest, parse
from tests.bridge.search.test_text_clause import FIELDS, HIDDEN, LEFT_ALONE, MATCH, PUBLIC, UNDERSTOOD

PROFILE = IndexProfile(list(FIELDS), ModelReference("toy", "0" * 12), 4)

_scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12)
_keys = st.text(max_size=8) | st.sampled_from(
    ["query", "bool", "must", "match", "title", "sort", "from", "size", "knn"]
)
_json = st.recursive(_scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_keys, inner, max_size=4))
_shapes = st.sampled_from([query for query, *_ in UNDERSTOOD.values()])


def _surrounded(query: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """What applications put around the words, none of it words itself."""
    return st.one_of(
        st.builds(lambda q, rest: {"bool": {"must": [q], **rest}}, query, _conditions),
        st.builds(lambda q, rest: {"bool": {"must": q, **rest}}, query, _conditions),
        query.map(lambda q: {"function_score": {"query": q, "functions": [{"weight": 2}]}}),
        query.map(lambda q: {"constant_score": {"filter": q}}),
        query.map(lambda q: {"boosting": {"positive": q, "negative": HIDDEN, "negative_boost": 0.5}}),
    )


_conditions = st.fixed_dictionaries(
    {}, optional={"filter": st.sampled_from([PUBLIC, [PUBLIC, HIDDEN], []]), "must_not": st.just([HIDDEN])}
)
_understood = st.recursive(_shapes, _surrounded, max_leaves=4)


def parsed(body: Any) -> SearchRequest | LeaveAlone:
    return parse(json.dumps(body).encode(), "", text_fields=FIELDS, object_field="_neural")


def is_reason(found: SearchRequest | LeaveAlone) -> bool:
    return isinstance(found, SearchRequest) or found.reason in REASONS or found.reason in CLAUSES


@given(st.binary(max_size=300) | _json.map(lambda value: json.dumps(value).encode()), st.text(max_size=60))
def test_any_bytes_are_understood_or_left_alone_for_a_known_reason(body: bytes, query_string: str) -> None:
    assert is_reason(parse(body, query_string, text_fields=FIELDS, object_field="_neural"))


@given(st.dictionaries(st.sampled_from(["query", "size", "from", "sort", "post_filter", "aggs", "fields"]), _json))
def test_any_members_of_a_search_are_understood_or_left_alone(body: dict[str, Any]) -> None:
    assert is_reason(parsed(body))


@given(_understood)
def test_the_applications_query_is_in_every_text_leg_as_it_was(query: Any) -> None:
    request = parsed({"query": query})

    assert isinstance(request, SearchRequest)
    lexical, expansion = (json.loads(write(leg(request, PROFILE))) for leg in (legs.lexical, legs.expansion))
    assert lexical["query"] == query
    assert "_neural.predicted_queries" in json.dumps(expansion)
    assert _without_alternatives(expansion["query"], query)


def _without_alternatives(ours: Any, theirs: Any) -> bool:
    """Whether `ours` is `theirs` with predicted queries as one alternative somewhere, and with nothing else."""
    if ours == theirs:
        return True
    match ours:
        case {"bool": {"should": [own, added], **rest}} if "_neural" in json.dumps(added):
            if own == theirs and not rest:
                return True
            # The clauses of a `should` are the words together: one object around them.
            given = theirs.get("bool", {}) if isinstance(theirs, dict) else {}
            wanted = {"should": given.get("should")}
            if "minimum_should_match" in given:
                wanted["minimum_should_match"] = given["minimum_should_match"]
            others = {key: value for key, value in given.items() if key not in wanted}
            return own == {"bool": wanted} and {k: v for k, v in rest.items() if k != "minimum_should_match"} == others
        case dict() if isinstance(theirs, dict) and ours.keys() == theirs.keys():
            return all(_without_alternatives(ours[key], theirs[key]) for key in ours)
        case list() if isinstance(theirs, list) and len(ours) == len(theirs):
            return all(_without_alternatives(one, other) for one, other in zip(ours, theirs, strict=True))
    return False


@given(st.data())
def test_an_unknown_member_on_the_way_to_the_words_leaves_the_search_alone(data: st.DataObject) -> None:
    query = json.loads(json.dumps(data.draw(_understood)))
    request = parsed({"query": query})
    assert isinstance(request, SearchRequest)
    depth = data.draw(st.integers(0, max(0, len(request.clause.path) - 1)))
    place = query
    for step in request.clause.path[:depth]:
        place = place[step]
    if not isinstance(place, dict):
        return
    place["no_such_member"] = data.draw(_json)

    assert isinstance(parsed({"query": query}), LeaveAlone)


@given(st.sampled_from([query for query, _ in LEFT_ALONE.values() if isinstance(query, dict)]))
def test_nothing_around_it_makes_an_unknown_query_known(query: Any) -> None:
    for outer in (
        {"bool": {"must": [query]}},
        {"dis_max": {"queries": [query]}},
        {"constant_score": {"filter": query}},
    ):
        assert isinstance(parsed({"query": outer}), LeaveAlone), outer


@pytest.mark.parametrize("member", ["no_such_member", "knn", "rescore", "collapse", "pit", "search_after", "retriever"])
def test_an_unknown_member_beside_the_query_leaves_the_search_alone(member: str) -> None:
    assert isinstance(parsed({"query": MATCH, member: {}}), LeaveAlone)
