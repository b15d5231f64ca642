"""Scores of vectors → probabilities: what is asked, how the curve is fitted, and when there is none."""

import asyncio
import json
from typing import Any

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from bridge.cluster.connection import connect
from bridge.evaluation.application_query import multi_match
from bridge.evaluation.calibration import (
    NotCalibrated,
    auc,
    calibrated,
    far_questions,
    logistic_curve,
    nearest_scores,
)
from bridge.profile import IndexProfile, Measurement, ModelReference
from bridge.search.fusion import confidence
from bridge.settings import ClusterSettings
from tests.fake_cluster import Received, Reply, fake_cluster, reply_json

PROFILE = IndexProfile(text_fields=["title"], encoder=ModelReference("toy", "0" * 12), dimension=4, generation=2)
MEASURED = Measurement("by hand", 0, "AUC", "2026-01-02T03:04:05Z")


def spread(low: float, high: float, n: int = 40) -> NDArray[np.float64]:
    return np.linspace(low, high, n)


def test_a_curve_is_even_in_the_middle_of_two_alike_groups() -> None:
    slope, middle = logistic_curve(spread(0.6, 0.9), spread(0.4, 0.7))
    assert middle == pytest.approx(0.65, abs=1e-6)
    assert slope > 0


@pytest.mark.parametrize(("slope", "middle"), [(30.0, 0.6), (8.0, 1.4)])
def test_a_curve_finds_the_probabilities_that_the_scores_were_drawn_by(slope: float, middle: float) -> None:
    chance = np.random.default_rng(7)
    scores = chance.uniform(middle - 4 / slope, middle + 4 / slope, size=20_000)
    answered = chance.random(scores.size) < 1 / (1 + np.exp(-slope * (scores - middle)))
    assert logistic_curve(scores[answered], scores[~answered]) == pytest.approx((slope, middle), rel=0.05)


def test_a_group_weighs_alike_however_many_questions_it_has() -> None:
    known, far = spread(0.6, 0.9), spread(0.4, 0.7)
    assert logistic_curve(known, np.tile(far, 9))[1] == pytest.approx(logistic_curve(known, far)[1], abs=0.01)


def test_scores_that_do_not_overlap_give_a_finite_curve() -> None:
    slope, middle = logistic_curve(spread(0.8, 0.9), spread(0.1, 0.2))
    assert np.isfinite(slope)
    assert 0.2 < middle < 0.8


@pytest.mark.parametrize(
    ("known", "far", "expected"),
    [([3.0, 4.0], [1.0, 2.0], 1.0), ([1.0], [2.0, 3.0], 0.0), ([2.0, 4.0], [2.0, 3.0], 0.625)],
)
def test_auc_is_the_share_of_pairs_in_order(known: list[float], far: list[float], expected: float) -> None:
    assert auc(np.array(known), np.array(far)).mean == expected


def test_the_interval_of_auc_holds_it_and_narrows_with_more_questions() -> None:
    few = auc(spread(0.5, 0.9, 20), spread(0.4, 0.8, 20))
    many = auc(spread(0.5, 0.9, 320), spread(0.4, 0.8, 320))
    for each in (few, many):
        assert each.low < each.mean < each.high
    assert many.high - many.low < (few.high - few.low) / 2


def test_a_calibration_says_what_it_was_made_of_and_gives_probabilities() -> None:
    made = calibrated(PROFILE, spread(0.6, 0.9), spread(0.4, 0.7, 60), MEASURED)
    assert (made.encoder, made.generation) == ("toy@" + "0" * 12, 2)
    assert (made.measurement.queries, made.far_questions) == (40, 60)
    assert made.low < made.auc < made.high
    profile = msgspec.structs.replace(PROFILE, calibration=made)
    assert confidence(profile, made.middle) == 0.5
    assert [round(confidence(profile, score) or 0.0) for score in (0.9, 0.4)] == [1, 0]


@pytest.mark.parametrize(
    ("known", "far", "reason"),
    [
        (spread(0.6, 0.9, 19), spread(0.4, 0.7), "19 questions that the index answers, at least 20"),
        (spread(0.6, 0.9), spread(0.4, 0.7, 3), "3 questions that it does not answer, at least 20"),
        (spread(0.5, 0.9), spread(0.5, 0.9), "in 50% of all pairs, at least 75% are needed"),
    ],
    ids=["few known", "few far", "alike"],
)
def test_scores_that_say_nothing_give_no_calibration(
    known: NDArray[np.float64], far: NDArray[np.float64], reason: str
) -> None:
    with pytest.raises(NotCalibrated, match=reason):
        calibrated(PROFILE, known, far, MEASURED)


def test_far_questions_are_many_and_each_stands_once() -> None:
    questions = far_questions()
    assert len(questions) > 100
    assert len(set(questions)) == len(questions)
    assert all(question == question.strip() and question for question in questions)


async def test_the_nearest_document_is_that_of_the_vector_leg_and_not_a_pinned_one() -> None:
    asked: set[tuple[str | None, int]] = set()

    def hit(**legs: float) -> dict[str, Any]:
        return {"_bridge": {"legs": {leg: {"rank": 1, "score": score} for leg, score in legs.items()}}}

    answers: dict[str, list[dict[str, Any]]] = {
        "wet feet": [hit(lexical=9.0), hit(vector=0.7, lexical=2.0), hit(vector=0.6)],
        "a part number": [{"_id": "passed"}],
        "nothing": [],
        "dry feet": [hit(vector=0.8)],
    }

    def proxy(request: Received) -> Reply:
        body = json.loads(request.body)
        words = body["query"]["multi_match"]["query"]
        asked.add((request.header("x-bridge"), body["size"]))
        return reply_json({"hits": {"hits": answers[words]}}) if words in answers else Reply(status=503)

    async with fake_cluster(proxy) as cluster:
        with connect(ClusterSettings(url=cluster.url)) as client:
            scores = await asyncio.to_thread(
                nearest_scores, client, "shop", [*answers, "refused"], multi_match(["title"])
            )

    assert scores.tolist() == [0.7, 0.8]
    assert asked == {("vector, explain", 10)}
