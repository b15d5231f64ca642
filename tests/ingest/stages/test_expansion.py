"""Predicted queries: which are kept, in which order, and how much of them."""

import pytest

from bridge.records import Document, Passage, SourcePosition
from ingest.stages.expansion import Expansion, QueryFilter
from tests.ingest.toys import EchoGenerator, LengthScorer


def document(text: str) -> Document:
    return Document("d", b"{}", {"text": text}, SourcePosition("x", 1))


def halves(text: str) -> list[Passage]:
    """Two passages, cut at the bar; none of an empty text."""
    if not text:
        return []
    middle = text.index("|")
    return [Passage(text[:middle], 0, middle), Passage(text[middle + 1 :], middle + 1, len(text))]


def expansion(**options: object) -> Expansion:
    return Expansion(
        halves,
        EchoGenerator(),
        **{"n_queries": 3, "max_query_tokens": 8, "max_bytes": 1000, **options},  # type: ignore[arg-type]
    )


def test_best_queries_of_all_passages_come_first_and_each_once() -> None:
    (expanded,) = expansion()([document("wing lift|Wing drag")])
    assert expanded.predicted_queries == ["what is wing", "what is lift", "what is drag"]


@pytest.mark.parametrize(
    ("max_bytes", "n_kept"),
    [pytest.param(26, 2, id="just-two"), pytest.param(25, 1, id="one-byte-less"), pytest.param(0, 0, id="none")],
)
def test_queries_are_kept_while_the_budget_holds(max_bytes: int, n_kept: int) -> None:
    (expanded,) = expansion(max_bytes=max_bytes)([document("wing lift|wing drag")])
    assert len(expanded.predicted_queries) == n_kept


def test_queries_stay_with_their_documents_in_a_batch() -> None:
    batch = expansion(n_queries=1)([document("a|b"), document(""), document("c|d")])
    assert [list(expanded.predicted_queries) for expanded in batch] == [
        ["what is a", "what is b"],
        [],
        ["what is c", "what is d"],
    ]


def test_the_filter_drops_what_scores_below_the_threshold_and_ranks_the_rest() -> None:
    keep = QueryFilter(LengthScorer(), threshold=3, threads=2)
    assert keep(["p", "q"], [["ab", "abc", "abcd"], ["abcde"]]) == [["abcd", "abc"], ["abcde"]]


def test_nothing_is_predicted_without_a_generator_or_where_no_query_is_asked_for() -> None:
    silent = Expansion(halves, None, n_queries=3, max_query_tokens=8, max_bytes=1000)
    for stage in (silent, expansion(n_queries=0)):
        (expanded,) = stage([document("a|b")])
        assert (expanded.predicted_queries, len(expanded.passages)) == ([], 2)


def test_of_predicted_queries_only_the_words_that_are_new_may_be_kept() -> None:
    (expanded,) = expansion(new_terms_only=True)([document("Wing lift|wing drag what")])
    assert expanded.predicted_queries == ["is"]
