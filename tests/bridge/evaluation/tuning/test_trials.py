"""A setting's ranking, quality and time, on legs and scores that were written by hand."""

from dataclasses import replace

import numpy as np
import pytest

from bridge.evaluation.judged_queries import JudgedQueries
from bridge.evaluation.tuning.setting import Setting
from bridge.evaluation.tuning.trials import Trials, estimated_ms
from bridge.profile import Stage
from tests.bridge.evaluation.tuning.by_hand import BAD, PROFILE, RIGHT, costs, search, trials


def test_the_applications_own_results_follow_the_window() -> None:
    tried = trials([search("q0", text_rank=4, vector_rank=None)])
    first_alone = replace(Setting.of(PROFILE, "hybrid").weighing(vector=0.0), window=1)
    assert tried.of(first_alone).values.tolist() == [0.25]


def test_groups_of_the_ranking_do_not_follow_it_once_more() -> None:
    """The right document is third of its leg; the two before it are of one group."""
    brands = {"t0": "x", "t1": "x", RIGHT: "y"}
    tried = trials([search("q0", text_rank=3, vector_rank=None, brands=brands)])
    first_alone = replace(Setting.of(PROFILE, "hybrid").weighing(vector=0.0), window=1)
    assert tried.of(first_alone).values.tolist() == [0.5]
    assert tried.of(Setting.of(PROFILE, "lexical")).values.tolist() == [0.5]


def test_a_confident_text_leg_ranks_alone_and_saves_the_time_of_reading() -> None:
    """The first hit of twelve scores twelve elevenths of the second."""
    tried = trials([search("q0", text_rank=1, vector_rank=None, large=BAD)])
    always = replace(Setting.of(PROFILE, "rerank"), blend=0.0)
    read, alone = tried.of(always), tried.of(replace(always, lead=1.05))
    assert read.values[0] < alone.values[0] == 1.0
    assert (read.took_ms[0], alone.took_ms[0]) == (pytest.approx(200.0), pytest.approx(20.0))
    assert tried.of(replace(always, lead=1.5)).values[0] == read.values[0]


def test_a_cascade_orders_its_best_by_the_large_model_and_the_others_by_the_small_one() -> None:
    large = {RIGHT: 9.0, "t0": 1.0, "t1": 2.0}
    small = {RIGHT: 3.0, "t1": 4.0, "t0": 5.0, "t2": 2.0, "t3": 1.0}
    tried = trials([search("q0", text_rank=12, vector_rank=12, large=large, small=small)])
    setting = replace(
        Setting.of(PROFILE, "cascade").weighing(vector=0.0), blend=0.0, cascade_candidates=100, cascade_depth=3
    )
    assert tried.of(setting).values.tolist() == [1.0]
    assert tried.of(replace(setting, cascade_depth=2)).values.tolist() == [pytest.approx(1 / 3)]


@pytest.mark.parametrize(
    ("stage", "expected"),
    [
        ("lexical", 5.0),
        ("expansion", 5.0),
        ("hybrid", 20.0),
        ("rerank", 20.0 + 30 * 6.0),
        ("cascade", 20.0 + 100 * 1.5 + 20 * 5.0),
    ],
)
def test_times_add_up_from_their_parts(stage: Stage, expected: float) -> None:
    assert estimated_ms(Setting.of(PROFILE, stage), costs()) == pytest.approx(expected)


def test_only_a_sparse_leg_with_a_weight_takes_time() -> None:
    hybrid = Setting.of(PROFILE, "hybrid")
    times = [estimated_ms(hybrid.weighing(sparse=weight), costs()) for weight in (0.0, 0.5)]
    assert times == [20.0, 23.0]


def test_the_leg_of_pictures_takes_time_beside_the_others() -> None:
    setting = Setting.of(PROFILE, "hybrid").weighing(image=0.5)
    slow = replace(costs(), embed_image=9.0)
    assert [estimated_ms(each, slow) for each in (setting, setting.weighing(image=0.0))] == [26.0, 20.0]


def test_a_setting_is_tried_once() -> None:
    tried = trials([search("q0", text_rank=2, vector_rank=2)])
    setting = Setting.of(PROFILE, "hybrid")
    assert tried.of(setting) is tried.of(Setting.of(PROFILE, "hybrid"))
    assert [trial.setting for trial in tried.tried()] == [setting]


def test_a_query_that_is_a_document_does_not_find_itself() -> None:
    searches = [search("t0", text_rank=2, vector_rank=None)]
    judged = JudgedQueries("by hand", {"t0": "words"}, {"t0": {RIGHT: 1}}, own_documents=frozenset({"t0"}))
    lexical = Setting.of(PROFILE, "lexical")
    assert trials(searches).of(lexical).values.tolist() == [0.5]
    assert Trials(searches, PROFILE, judged, measure="RR@10").of(lexical).values.tolist() == [1.0]


def test_figures_are_of_the_queries_in_question() -> None:
    tried = trials([search("q0", text_rank=1, vector_rank=1), search("q1", text_rank=2, vector_rank=2)])
    trial = tried.of(Setting.of(PROFILE, "lexical"))
    assert (trial.mean(np.array([0])), trial.mean(np.array([0, 1]))) == (1.0, 0.75)
    assert trial.p95_ms(np.array([1])) == 5.0
    assert tried.estimated_p95_ms(Setting.of(PROFILE, "hybrid")) == 20.0
