"""The typing errors that the benchmark makes, and what it makes suggestions of."""

import random
from itertools import islice

import pytest

from benchmarks.typing import PER_DOCUMENT, _made, misspelt, with_error
from bridge.search.repair import distance

QUERIES = {f"q{n}": "what are the pressures on a wing in supersonic flow" for n in range(200)}


def test_each_query_gets_one_error_in_one_content_word() -> None:
    typed = misspelt(QUERIES)
    assert typed.keys() == QUERIES.keys()
    changed = set[str]()
    for query_id, words in typed.items():
        pairs = zip(QUERIES[query_id].split(), words.split(), strict=True)
        [(correct, wrong)] = [(correct, wrong) for correct, wrong in pairs if correct != wrong]
        assert distance(correct, wrong) == 1
        changed.add(correct)
    assert changed == {"pressures", "wing", "supersonic", "flow"}


def test_the_errors_of_a_query_are_the_same_each_time_and_of_every_kind() -> None:
    typed = misspelt(QUERIES)
    assert misspelt(dict(reversed(QUERIES.items()))) == typed
    assert {len(typed[query_id]) - len(words) for query_id, words in QUERIES.items()} == {-1, 0, 1}


@pytest.mark.parametrize("text", ["", "what is it", "with that 1234"])
def test_a_query_without_a_content_word_gets_none(text: str) -> None:
    assert with_error(text, random.Random(1)) is None


def test_made_queries_hold_words_of_their_document() -> None:
    documents = {"a": ("wing", "the pressure on a wing in a flow"), "b": ("empty", "")}
    made = list(islice(_made(documents), 4))
    assert [title for title, _, _ in made] == ["wing", "empty"] * 2
    for title, text, predicted in made:
        assert len(predicted) == PER_DOCUMENT
        assert all(query.split()[-1] in (text.split() or [title]) for query in predicted)
