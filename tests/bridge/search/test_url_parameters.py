"""Which URL parameters the bridge knows."""

import pytest

from bridge.search.known_clauses import NotUnderstood
from bridge.search.url_parameters import is_set, parameters_of


def test_known_parameters_are_decoded() -> None:
    assert parameters_of("q=title%3Acaf%C3%A9&size=5&routing=a,b&pretty") == {
        "q": "title:café",
        "size": "5",
        "routing": "a,b",
        "pretty": "",
    }


@pytest.mark.parametrize(
    ("query_string", "reason"),
    [
        ("surprise=1", "unknown_parameter"),
        ("size=1&size=2", "unknown_parameter"),
        ("scroll=1m", "scroll"),
        ("search_pipeline=mine", "search_pipeline"),
        ("format=yaml", "format"),
        ("q=%ff", "unknown_parameter"),
        ("&".join(f"size={n}" for n in range(1000)), "unknown_parameter"),
    ],
    ids=["unknown", "twice", "scroll", "pipeline", "format", "no-utf-8", "thousand"],
)
def test_whatever_else_stands_there_lets_the_search_pass(query_string: str, reason: str) -> None:
    with pytest.raises(NotUnderstood) as passed:
        parameters_of(query_string)
    assert passed.value.reason == reason


@pytest.mark.parametrize(("value", "expected"), [("", True), ("true", True), ("false", False), ("1", False)])
def test_a_flag_without_a_value_is_set(value: str, expected: bool) -> None:
    assert is_set({"explain": value}, "explain") is expected
    assert is_set({}, "explain") is False
