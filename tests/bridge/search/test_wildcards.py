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
from bridge.search.text_clause import NotUnderstood, words_of
from bridge.search.wildcards import beginning_matches, matches

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
