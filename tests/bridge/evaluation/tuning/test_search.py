"""The search for settings, on legs and scores that were written by hand."""

from dataclasses import replace

import numpy as np
import pytest

from bridge.evaluation.tuning.search import choose, cross_validate, front
from bridge.evaluation.tuning.setting import Setting
from bridge.evaluation.tuning.trials import Trials
from bridge.profile import Stage
from tests.bridge.evaluation.tuning.by_hand import BAD, PROFILE, search, trials

N_QUERIES = 20
ALL_STAGES = frozenset(("lexical", "expansion", "hybrid", "rerank", "cascade"))


@pytest.fixture
def vectors_know_best() -> Trials:
    """Vectors have the right document second, texts do not find it; the cross-encoders put it last."""
    return trials([search(f"q{n}", text_rank=None, vector_rank=2, large=BAD) for n in range(N_QUERIES)])


def seeds(stage: Stage = "rerank") -> list[Setting]:
    default = Setting.of(PROFILE, stage)
    return [default, *(replace(default, stage=each) for each in ("hybrid", "expansion", "lexical"))]


EVERY_ROW = np.arange(N_QUERIES)


def test_a_harmful_reranker_is_left_out_and_the_right_leg_weighs_more(vectors_know_best: Trials) -> None:
    chosen = choose(vectors_know_best, seeds(), EVERY_ROW, budget_ms=None, allowed=ALL_STAGES)
    assert chosen.mean(EVERY_ROW) == 0.5
    assert chosen.setting.stage == "hybrid"
    assert dict(chosen.setting.weights)["vector"] > dict(chosen.setting.weights)["expansion"]


def test_a_good_reranker_is_chosen_where_there_is_time_for_it() -> None:
    tried = trials([search(f"q{n}", text_rank=5 + n % 2, vector_rank=None) for n in range(N_QUERIES)])
    unlimited = choose(tried, seeds("hybrid"), EVERY_ROW, budget_ms=None, allowed=ALL_STAGES)
    assert unlimited.setting.stage in ("rerank", "cascade")
    assert unlimited.mean(EVERY_ROW) == 1.0
    limited = choose(tried, seeds("hybrid"), EVERY_ROW, budget_ms=25, allowed=ALL_STAGES)
    assert limited.setting.stage in ("lexical", "expansion", "hybrid")
    assert limited.p95_ms(EVERY_ROW) <= 25


def test_documents_are_not_read_for_what_is_surely_too_slow() -> None:
    """A document costs 6 ms to read, beside 20 ms for the legs."""
    tried = trials([search(f"q{n}", text_rank=5, vector_rank=6) for n in range(N_QUERIES)])
    choose(tried, seeds("hybrid"), EVERY_ROW, budget_ms=85, allowed=ALL_STAGES)
    read = {trial.setting.depth for trial in tried.tried() if trial.setting.stage == "rerank"}
    assert read == {10}


def test_where_nothing_is_quick_enough_the_quickest_is_chosen(vectors_know_best: Trials) -> None:
    chosen = choose(vectors_know_best, seeds(), EVERY_ROW, budget_ms=0.1, allowed=ALL_STAGES)
    assert chosen.p95_ms(EVERY_ROW) == 5.0


def test_only_stages_that_are_allowed_are_chosen() -> None:
    tried = trials([search(f"q{n}", text_rank=6, vector_rank=7) for n in range(N_QUERIES)])
    allowed = frozenset(("lexical", "expansion", "hybrid"))
    chosen = choose(tried, seeds("hybrid"), EVERY_ROW, budget_ms=None, allowed=allowed)
    assert chosen.setting.stage in allowed


def test_of_equally_good_settings_the_first_seed_or_a_quicker_one_stays() -> None:
    tried = trials([search(f"q{n}", text_rank=1, vector_rank=1) for n in range(N_QUERIES)])
    chosen = choose(tried, seeds("hybrid"), EVERY_ROW, budget_ms=None, allowed=ALL_STAGES)
    assert chosen.setting.stage in ("lexical", "expansion")


def test_what_is_reported_had_no_part_in_the_choice() -> None:
    """For each query another leg is right, at random: what fits the other folds is no better than chance here."""
    chance = np.random.default_rng(5)
    searches = []
    for n in range(N_QUERIES):
        text_is_right = bool(chance.integers(2))
        ranks = (1, 12) if text_is_right else (12, 1)
        searches.append(search(f"q{n}", text_rank=ranks[0], vector_rank=ranks[1], large={}))
    tried = trials(searches)
    held_out = cross_validate(tried, seeds("hybrid")[0], seeds("hybrid"), budget_ms=None, allowed=ALL_STAGES)
    fitted = max(trial.mean(EVERY_ROW) for trial in tried.tried())
    assert held_out.tuned <= fitted
    assert held_out.difference.low <= held_out.difference.mean <= held_out.difference.high


def test_a_gain_that_holds_everywhere_is_found_and_shown(vectors_know_best: Trials) -> None:
    held_out = cross_validate(vectors_know_best, seeds()[0], seeds(), budget_ms=None, allowed=ALL_STAGES)
    assert held_out.tuned == 0.5
    assert held_out.difference.low > 0.3
    assert held_out.p_value < 0.01


def test_the_front_rises_with_time() -> None:
    tried = trials([search(f"q{n}", text_rank=6, vector_rank=7) for n in range(N_QUERIES)])
    chosen = cross_validate(tried, seeds("hybrid")[0], seeds("hybrid"), budget_ms=None, allowed=ALL_STAGES)
    points = front(tried, seeds("hybrid")[0], seeds("hybrid"), allowed=ALL_STAGES)
    assert len(points) >= 2
    assert [point.p95_ms for point in points] == sorted(point.p95_ms for point in points)
    assert points[0].tuned < points[-1].tuned == chosen.tuned
