"""Measures checked by hand, intervals and the randomisation test by their properties."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from bridge.evaluation.measures import bootstrap_interval, evaluate, randomisation_test

QRELS = {"q1": {"a": 1}, "q2": {"b": 1, "c": 1}, "q3": {"d": 1}}


def test_values_by_hand() -> None:
    run = {"q1": ["x", "a"], "q2": ["b", "x", "c"], "q3": ["x", "y"]}
    evaluation = evaluate(QRELS, run)
    assert evaluation.values["RR@10"].tolist() == pytest.approx([0.5, 1.0, 0.0])
    assert evaluation.values["R@10"].tolist() == pytest.approx([1.0, 1.0, 0.0])
    # (1/log2(2) + 1/log2(4)) / (1/log2(2) + 1/log2(3))
    assert evaluation.values["nDCG@10"][1] == pytest.approx(1.5 / (1 + 1 / np.log2(3)))
    assert evaluation.mean("RR@10") == pytest.approx(0.5)


def test_query_without_ranking_counts_zero() -> None:
    evaluation = evaluate(QRELS, {"q1": ["a"], "q2": []})
    assert evaluation.values["RR@10"].tolist() == [1.0, 0.0, 0.0]
    assert evaluate(QRELS, {}).mean("RR@10") == 0.0


def test_query_without_judgement_is_ignored() -> None:
    assert evaluate(QRELS, {"q1": ["a"], "unjudged": ["a"]}).query_ids == ["q1", "q2", "q3"]


def test_order_alone_counts() -> None:
    ascending = [f"d{n:02d}" for n in range(12)]
    qrels = {"q": {"d11": 1}}
    assert evaluate(qrels, {"q": ascending}).values["RR@10"].tolist() == [0.0]
    assert evaluate(qrels, {"q": ascending[::-1]}).values["RR@10"].tolist() == [1.0]


def test_restriction_keeps_the_values_of_its_queries() -> None:
    evaluation = evaluate(QRELS, {"q1": ["x", "a"], "q3": ["d"]})
    restricted = evaluation.restricted_to(frozenset({"q3", "q1"}))
    assert restricted.query_ids == ["q1", "q3"]
    assert restricted.values["RR@10"].tolist() == [0.5, 1.0]


def test_no_judged_queries_is_refused() -> None:
    with pytest.raises(ValueError, match="no judged queries"):
        evaluate({}, {})


def test_unknown_measure_is_refused() -> None:
    with pytest.raises(ValueError, match="choose from"):
        evaluate(QRELS, {}, ["P@3"])


floats = st.lists(st.floats(0, 1), min_size=1, max_size=50).map(np.array)


@given(values=floats)
def test_interval_holds_the_mean_and_stays_within_the_values(values: NDArray[np.float64]) -> None:
    estimate = bootstrap_interval(values, resamples=200)
    assert estimate.low - 1e-9 <= estimate.high + 1e-9
    assert values.min() - 1e-9 <= estimate.low
    assert estimate.high <= values.max() + 1e-9
    assert estimate.mean == pytest.approx(values.mean())


def test_interval_covers_the_true_mean_about_as_often_as_it_says() -> None:
    random = np.random.default_rng(1)
    covered = 0
    for n in range(200):
        estimate = bootstrap_interval(random.binomial(1, 0.4, 150).astype(float), resamples=500, seed=n)
        covered += estimate.low <= 0.4 <= estimate.high
    assert 0.90 <= covered / 200 <= 0.99


def test_same_seed_gives_the_same_interval() -> None:
    values = np.random.default_rng(2).random(40)
    assert bootstrap_interval(values) == bootstrap_interval(values)


def test_more_queries_give_a_narrower_interval() -> None:
    values = np.random.default_rng(3).random(50)
    few, many = bootstrap_interval(values), bootstrap_interval(np.tile(values, 20))
    assert many.high - many.low < (few.high - few.low) / 3


def test_equal_runs_are_not_told_apart() -> None:
    values = np.random.default_rng(4).random(30)
    assert randomisation_test(values, values.copy()) == 1.0


def test_run_that_wins_every_query_differs() -> None:
    worse = np.random.default_rng(5).random(30) / 2
    assert randomisation_test(worse + 0.2, worse) < 0.001


def test_randomisation_test_agrees_with_enumeration() -> None:
    # Four queries, all won by 0.1: of 16 labellings only the two unanimous ones differ as much.
    first, second = np.full(4, 0.6), np.full(4, 0.5)
    assert randomisation_test(first, second, permutations=20_000) == pytest.approx(2 / 16, abs=0.01)


def test_unpaired_values_are_refused() -> None:
    with pytest.raises(ValueError, match="paired values"):
        randomisation_test(np.zeros(3), np.zeros(4))
