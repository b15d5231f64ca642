"""What a clause is called, which words it searches for, and in which fields."""

from typing import Any

import pytest

from bridge.search.known_clauses import (
    NotUnderstood,
    Words,
    as_list,
    is_random,
    mentions,
    only_member,
    searches,
    words_of,
)


@pytest.mark.parametrize(
    ("kind", "body", "expected"),
    [
        ("match", {"title": "red shoe"}, Words("red shoe", ["title"])),
        ("match", {"title": {"query": "red shoe", "boost": 2}}, Words("red shoe", ["title"])),
        ("multi_match", {"query": "red", "fields": ["title^2", "b*"]}, Words("red", ["title^2", "b*"])),
        ("query_string", {"query": "red shoe"}, Words("red shoe", [])),
        ("query_string", {"query": "red OR shoe"}, Words("red OR shoe", [], True)),
        ("term", {"kind": "shoe"}, None),
    ],
)
def test_words_and_fields_of_a_clause(kind: str, body: dict[str, Any], expected: Words | None) -> None:
    assert words_of(kind, body) == expected


def test_a_parameter_that_nobody_knows_leaves_the_query_alone() -> None:
    with pytest.raises(NotUnderstood) as passed:
        words_of("match", {"title": {"query": "red", "surprise": 1}})
    assert passed.value.reason == "unknown_parameter"


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ([], True),
        (["title"], True),
        (["title^3"], True),
        (["title.english"], True),
        (["ti*"], True),
        (["*"], True),
        (["*.english"], True),
        (["subtitle"], False),
        (["titles"], False),
        (["price", "kind*"], False),
    ],
)
def test_a_clause_searches_an_enriched_field_by_its_name_a_sub_field_or_a_pattern(
    fields: list[str], expected: bool
) -> None:
    assert searches(Words("red", fields), ["title", "body.en"]) is expected


def test_trees_are_walked_to_their_leaves() -> None:
    assert mentions({"a": [{"b": {"wanted": 1}}]}, "wanted")
    assert not mentions({"a": ["wanted"]}, "wanted")
    assert only_member({"match": 1}) == ("match", 1)
    assert (as_list(None), as_list("x"), as_list(["x"])) == ([], ["x"], ["x"])
    assert is_random({"functions": [{"weight": 2}, {"random_score": {}}]})
    with pytest.raises(NotUnderstood):
        only_member({"a": 1, "b": 2})
