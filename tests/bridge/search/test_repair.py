import json
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.errors import AnswerNotUnderstood
from bridge.search.repair import MAX_WORDS, Doubts, distance
from bridge.search.request import Repair, SearchRequest, words_request
from tests.bridge.search.test_legs import PROFILE, understood

FIELDS = ["title", "body"]


def request(text: str) -> SearchRequest:
    return words_request(text, FIELDS)


def repaired(
    text: str,
    *,
    held: Sequence[str] = (),
    near: Mapping[str, Sequence[str]] | None = None,
    written: Mapping[str, Sequence[str]] | None = None,
    n_documents: Mapping[str, int] | None = None,
) -> Repair | None:
    """What becomes of a text if documents hold the words `held`, `near` are the near terms of each word, and `written`
    the fragments of documents in which a guess is found."""
    doubts = Doubts.of(request(text), PROFILE)
    assert doubts is not None
    searched = [body["query"]["bool"]["should"][1]["multi_match"]["query"] for body in doubts.bodies]
    missing = doubts.missing(json.dumps({"responses": [found(int(word in held)) for word in searched]}).encode())
    if missing is None:
        return None
    [body] = missing.bodies
    entries = {name: list(_entries(each["text"], near or {})) for name, each in body["suggest"].items()}
    guesses = missing.guesses(json.dumps({"responses": [{**found(9), "suggest": entries}]}).encode())
    if guesses is None:
        return None
    answers = []
    for body in guesses.bodies:
        clauses = json.dumps(body["query"])
        fragments = [each for term, each in (written or {}).items() if f'"{term}"' in clauses]
        number = next((n for term, n in (n_documents or {}).items() if f'"{term}"' in clauses), 5)
        answers.append(found(number if fragments else 0, [each for of_term in fragments for each in of_term]))
    return guesses.repair(json.dumps({"responses": answers}).encode())


def _entries(text: str, near: Mapping[str, Sequence[str]]) -> Any:
    start = 0
    for word in text.split(" "):
        options = [{"text": each, "score": 0.8, "freq": 3} for each in near.get(word, ())]
        if word != "with":  # no analyser keeps it
            yield {"text": word, "offset": start, "length": len(word), "options": options}
        start += len(word) + 1


def found(total: int, fragments: Sequence[str] = ()) -> dict[str, Any]:
    marked = [each.replace("[", "\ue000").replace("]", "\ue001") for each in fragments]
    return {"hits": {"total": {"value": total, "relation": "eq"}, "hits": [{"highlight": {"body": marked}}]}}


CASES: dict[str, tuple[dict[str, Any], tuple[str, dict[str, str]] | None]] = {
    "a near word that documents hold": (
        {"text": "serach the web", "near": {"serach": ["search"]}, "written": {"search": ["a [search] page"]}},
        ("search the web", {"serach": "search"}),
    ),
    "as it is written, and not as the analyser cuts it": (
        {"text": "hapyp dogs", "held": ["dogs"], "near": {"hapyp": ["happi"]},
         "written": {"happi": ["[happiness] of [happy] dogs"]}},
        ("happy dogs", {"hapyp": "happy"}),
    ),
    "in lower case, as it was typed": (
        {"text": "serach", "near": {"serach": ["search"]}, "written": {"search": ["[Search] here"]}},
        ("search", {"serach": "search"}),
    ),
    "as documents write a name": (
        {"text": "Berln", "near": {"Berln": ["berlin"]}, "written": {"berlin": ["in [Berlin]"]}},
        ("Berlin", {"Berln": "Berlin"}),
    ),
    "a word that documents hold stays": (
        {"text": "serach", "held": ["serach"], "near": {"serach": ["search"]}, "written": {"search": ["[search]"]}},
        None,
    ),
    "too rare a word is none": (
        {"text": "serach", "near": {"serach": ["search"]}, "written": {"search": ["[search]"]},
         "n_documents": {"search": 1}},
        None,
    ),
    "no word of two errors for a short one": (
        {"text": "sreahc", "near": {"sreahc": ["search"]}, "written": {"search": ["[search]"]}},
        None,
    ),
    "a word of two errors for a long one": (
        {"text": "pressuer distribtuion", "near": {"pressuer": ["pressur"], "distribtuion": ["distribut"]},
         "written": {"pressur": ["[pressure]"], "distribut": ["[distribution]"]}},
        ("pressure distribution", {"pressuer": "pressure", "distribtuion": "distribution"}),
    ),
    "the nearest before the most frequent": (
        {"text": "experimnts", "near": {"experimnts": ["experi", "experiment"]},
         "written": {"experi": ["[experiment]"], "experiment": ["[experiments]"]}, "n_documents": {"experi": 900}},
        ("experiments", {"experimnts": "experiments"}),
    ),
    "the most frequent of equally near ones": (
        {"text": "boks", "near": {"boks": ["book", "box"]}, "written": {"book": ["[books]"], "box": ["[bonks]"]},
         "n_documents": {"box": 7}},
        ("bonks", {"boks": "bonks"}),
    ),
    "joined words": (
        {"text": "data bases here", "held": ["data"], "written": {"databases": ["two [databases]"]}},
        ("databases here", {"data bases": "databases"}),
    ),
    "a split word": (
        {"text": "heatflow", "written": {"heat flow": ["the [heat] [flow] in"]}},
        ("heat flow", {"heatflow": "heat flow"}),
    ),
    "a stem that misspelt endings hide": (
        {"text": "heatod", "near": {"heat": []}, "written": {"heat": ["[heat] and [heated]"]}},
        ("heated", {"heatod": "heated"}),
    ),
    "a letter left out before one that is wrong": (
        {"text": "sint", "near": {"sint": ["sent", "saint"]}, "written": {"sent": ["[sent]"], "saint": ["[saint]"]},
         "n_documents": {"sent": 90}},
        ("saint", {"sint": "saint"}),
    ),
    "what the index leaves out of every text": (
        {"text": "wave with", "held": ["wave"], "written": {"withe": ["[withe]"]}},
        None,
    ),
    "nothing near": ({"text": "zzzyx"}, None),
    "too many unknown words": ({"text": "lorem ipsum dolor amet"}, None),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_word_that_no_document_holds_is_repaired_by_a_near_one(name: str) -> None:
    given_, expected = CASES[name]
    assert repaired(**given_) == (None if expected is None else Repair(*expected))


@pytest.mark.parametrize(
    "text", ['"serach"', "a b12 x", "C3PO R2D2", "", "word " * (MAX_WORDS + 1), "wi-fi", "don't", "node.js", "𝐬𝐞𝐫𝐚𝐜𝐡"]
)
def test_other_texts_are_not_looked_at(text: str) -> None:
    assert Doubts.of(request(text), PROFILE) is None


def test_words_are_looked_for_where_the_applications_query_searches_and_without_its_own_tolerance() -> None:
    words = {"query": "red serach", "fields": ["title", "brand"], "fuzziness": "AUTO"}
    body = {"query": {"bool": {"must": [{"multi_match": words}]}}}
    doubts = Doubts.of(understood(body), PROFILE)
    assert doubts is not None
    [clause, _] = doubts.bodies[0]["query"]["bool"]["should"]
    assert clause == {"multi_match": {"query": "serach", "fields": ["title", "brand"]}}  # `red` is too short


@pytest.mark.parametrize(
    "answer",
    [b"{}", b'{"responses": []}', b'{"responses": [{"error": {"type": "x"}}]}', b"nothing"],
)
def test_an_answer_that_lacks_a_search_is_none(answer: bytes) -> None:
    doubts = Doubts.of(request("serach"), PROFILE)
    assert doubts is not None
    with pytest.raises(AnswerNotUnderstood):
        doubts.missing(answer)


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [("search", "search", 0), ("serach", "search", 1), ("seach", "search", 1), ("search", "", 6), ("ca", "abc", 3)],
)
def test_a_swap_of_neighbours_is_one_error(one: str, other: str, expected: int) -> None:
    assert distance(one, other) == distance(other, one) == expected


@given(st.text("abc", max_size=6), st.text("abc", max_size=6))
def test_the_distance_is_between_the_difference_of_the_lengths_and_the_longer_one(one: str, other: str) -> None:
    between = distance(one, other)
    assert abs(len(one) - len(other)) <= between <= max(len(one), len(other))
    assert (between == 0) == (one == other)
