import json
from collections.abc import Mapping, Sequence

import msgspec
import pytest
from msgspec import Raw

from bridge.records import Key
from bridge.search.response import ShownHit
from bridge.search.suggestions import predicted_queries, suggesting, suggestions
from tests.bridge.search.test_legs import PROFILE

QUERIES: Mapping[Key, Sequence[str]] = {
    ("i", "boot"): ["dry feet in rain", "red rubber boots", "Red shoes?"],
    ("i", "sandal"): ["red shoes", "beach shoes for a red summer"],
    ("i", "lamp"): ["what is a bright red lamp", "red"],
}


def texts(typed: str, size: int = 10) -> list[str]:
    return [each.text for each in suggestions(typed, QUERIES, size=size)]


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("red sh", ["Red shoes?", "beach shoes for a red summer"]),
        ("sho", ["Red shoes?", "beach shoes for a red summer"]),
        ("bright re", ["what is a bright red lamp"]),
        ("summer beach", ["beach shoes for a red summer"]),
        ("FEE", ["dry feet in rain"]),
        ("violin", []),
        ("?!", []),
        ("", []),
    ],
)
def test_each_word_that_was_typed_begins_a_word_of_a_suggestion(typed: str, expected: list[str]) -> None:
    assert texts(typed) == expected


def test_what_begins_as_typed_comes_first_and_then_what_more_documents_have() -> None:
    assert texts("red") == [
        "Red shoes?",
        "red rubber boots",
        "red",
        "beach shoes for a red summer",
        "what is a bright red lamp",
    ]
    assert texts("red", size=2) == ["Red shoes?", "red rubber boots"]


def test_a_suggestion_names_the_first_document_that_answers_it() -> None:
    [first, *_] = suggestions("red sh", QUERIES, size=10)
    assert (first.index, first.doc_id) == ("i", "boot")


@pytest.mark.parametrize(
    ("typed", "shortened"), [("happines", "happi"), ("red sho", "red sho"), ("shoe", "sho"), ("?", "?"), ("", "")]
)
def test_the_last_word_may_be_longer_than_what_the_analyser_makes_of_it(typed: str, shortened: str) -> None:
    [either] = suggesting(PROFILE, typed)["query"]["bool"]["must"]
    [begun, shorter] = [each["match_bool_prefix"]["_neural.predicted_queries"] for each in either["dis_max"]["queries"]]
    assert (begun["query"], shorter["query"]) == (typed, shortened)


def test_predicted_queries_of_a_later_generation_stand_deeper() -> None:
    profile = msgspec.structs.replace(PROFILE, generation=2)
    source = {"_neural": {"predicted_queries": ["old"], "generation_2": {"predicted_queries": ["new", None]}}}
    hit = ShownHit(("i", "a"), 1.0, {"_source": Raw(json.dumps(source).encode())})
    assert predicted_queries(hit, profile) == ["new"]


@pytest.mark.parametrize("source", [b"{}", b"null", b'{"_neural": null}', b'{"_neural": {"predicted_queries": 3}}'])
def test_a_document_may_show_none(source: bytes) -> None:
    assert predicted_queries(ShownHit(("i", "a"), 1.0, {"_source": Raw(source)}), PROFILE) == []
