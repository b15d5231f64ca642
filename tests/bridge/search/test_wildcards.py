"""Patterns of requests: matched as a naive reader would, with work that grows with the name alone."""

import re
import sys
from types import FrameType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.search.filter_path import filtered
from bridge.search.request import parameters_of
from bridge.search.text_clause import NotUnderstood, find_text, words_of
from bridge.search.wildcards import MAX_COMPARISONS, beginning_matches, matches

PATTERNS = st.text("ab.*", max_size=10)
NAMES = st.text("ab.", max_size=10)


def naive(pattern: str, name: str) -> bool:
    return re.fullmatch(re.escape(pattern).replace(r"\*", ".*"), name) is not None


@given(PATTERNS, NAMES)
def test_a_pattern_matches_what_a_regular_expression_would(pattern: str, name: str) -> None:
    assert matches(pattern, name) is naive(pattern, name)


@given(PATTERNS, NAMES)
def test_so_does_its_beginning(pattern: str, name: str) -> None:
    assert beginning_matches(pattern, name) is any(naive(pattern[:end], name) for end in range(len(pattern) + 1))


def lines_run(work: Any) -> int:
    """Lines of Python that a call runs: work, whatever the machine does beside it."""
    count = 0

    def trace(frame: FrameType, event: str, _argument: Any) -> Any:
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return count


@pytest.mark.case("P43")
@pytest.mark.parametrize("pattern", ["*" * 120 + "z", "*a" * 60 + "z", "a*" * 3_000, "b" * 6_000])
def test_no_pattern_makes_more_work_than_its_length_and_the_names(pattern: str) -> None:
    name = "a" * 500

    assert lines_run(lambda: matches(pattern, name)) < 20 * (len(pattern) + len(name))
    assert lines_run(lambda: beginning_matches(pattern, name)) < 20 * (len(pattern) + len(name))


@pytest.mark.case("P43")
def test_many_double_stars_are_as_much_work_as_one() -> None:
    answer = b'{"hits":{"hits":[%s]}}' % b",".join(b'{"_id":"%d","_source":{"a":{"b":1}}}' % n for n in range(20))

    once = lines_run(lambda: filtered(answer, "**.b"))
    often = lines_run(lambda: filtered(answer, ".".join(["**"] * 45) + ".b"))
    mixed = lines_run(lambda: filtered(answer, ".".join(["**", "*"] * 20) + ".b"))

    assert often < 2 * once
    assert mixed < 60 * once
    assert filtered(answer, "**.**.b") == filtered(answer, "**.b")


@pytest.mark.case("P43")
def test_searches_that_name_too_much_pass() -> None:
    for fields in (["f"] * 20_000, ["f" * 6_000]):
        with pytest.raises(NotUnderstood, match="too_many_names"):
            words_of("multi_match", {"query": "red", "fields": fields})
    with pytest.raises(NotUnderstood, match="too_many_names"):
        words_of("match", {"f" * 6_000: "red"})
    with pytest.raises(NotUnderstood, match="too_many_names"):
        parameters_of("filter_path=" + ",".join(f"f{n}" for n in range(300)))


@pytest.mark.case("P43")
def test_names_of_a_whole_query_have_a_bound_and_one_name_is_compared_once() -> None:
    def query(names: list[str]) -> dict[str, object]:
        return {"bool": {"should": [{"match": {name: "red shoe"}} for name in names]}}

    fields = [f"text_{i}" for i in range(10)]
    assert find_text(query(["text_*"] * 5_000), fields).text == "red shoe"
    with pytest.raises(NotUnderstood, match="too_many_names"):
        find_text(query([f"*{i}x" for i in range(MAX_COMPARISONS // 10 + 1)]), fields)

    long = "text_" + "x" * 300
    once = lines_run(lambda: find_text(query(["*e*x*"]), [long]))
    often = lines_run(lambda: find_text(query(["*e*x*"] * 101), [long]))
    assert often - once < 100 * lines_run(lambda: matches("*e*x*", long)) / 2


@pytest.mark.case("P43")
def test_conditions_of_clauses_in_clauses_keep_their_order() -> None:
    query: dict[str, object] = {"match": {"title": "red shoe"}}
    for depth in range(100):
        condition = {"term": {"n": depth}}
        query = {"bool": {"must": [{"exists": {"field": depth}}, query], "filter": condition, "must_not": condition}}

    clause = find_text(query, ["title"])

    downwards = range(99, -1, -1)
    assert clause.path == ("bool", "must", 1) * 100
    assert list(clause.excluded) == [{"term": {"n": depth}} for depth in downwards]
    assert list(clause.required) == [
        each for depth in downwards for each in ({"term": {"n": depth}}, {"exists": {"field": depth}})
    ]
