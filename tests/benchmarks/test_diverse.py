"""What alpha-nDCG@10 counts: each further variant of a document half as much as the one before."""

import math

import pytest

from benchmarks.collapse import VARIANTS
from benchmarks.diverse import ALPHA, alpha_ndcg

_SECOND = 1 / math.log2(3)


@pytest.mark.parametrize(
    ("groups", "judgements", "expected"),
    [
        (["a", "b"], {"a": 1, "b": 1}, 1 + _SECOND),
        (["a", "a"], {"a": 1, "b": 1}, 1 + (1 - ALPHA) * _SECOND),
        (["x", "a"], {"a": 1, "b": 1}, _SECOND),
        (["a"], {"a": 3, "b": 1}, 3),
        (["x", "y"], {"a": 1, "b": 1}, 0),
    ],
    ids=["both", "one twice", "one late", "graded", "none"],
)
def test_a_variant_of_what_was_shown_is_worth_half(
    groups: list[str], judgements: dict[str, int], expected: float
) -> None:
    assert alpha_ndcg(groups, judgements) / alpha_ndcg(["a"], judgements) * max(judgements.values()) == pytest.approx(
        expected
    )


def test_the_best_ranking_has_1_and_repetition_less() -> None:
    judgements = {"a": 1, "b": 1}
    best = [group for _ in VARIANTS for group in ("a", "b")]
    repeating = sorted(best)
    assert alpha_ndcg(best, judgements) == pytest.approx(1.0)
    assert 0 < alpha_ndcg(repeating, judgements) < 1
    assert alpha_ndcg([*best, "a", "a"], judgements) == alpha_ndcg(best[:10], judgements)


def test_queries_without_a_relevant_document_count_nothing() -> None:
    assert alpha_ndcg(["a"], {"a": 0}) == 0.0
