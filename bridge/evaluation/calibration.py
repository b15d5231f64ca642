"""Calibrates an index: what a score of the vector leg says about the probability that the index answers a question.

Questions that the index answers, label-free ones as good as judged ones, are compared with questions about everything
else: how near is the nearest document? Scores of an encoder mean something else on each index, so each has a logistic
curve of its own.
"""

from collections.abc import Callable, Iterable, Iterator
from importlib import resources
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from opensearchpy import OpenSearch

from bridge.cluster.connection import exchange
from bridge.errors import BridgeError
from bridge.evaluation.application_query import BodyOf
from bridge.evaluation.judged_queries import FEWEST_QUERIES
from bridge.evaluation.measures import Estimate
from bridge.evaluation.stages import CONTROL_HEADER
from bridge.profile import Calibration, IndexProfile, Measurement

QUESTIONS_FILE = "far_questions.txt"

LOWEST_AUC = 0.75
"""If the scores tell answered and other questions apart less often, no probability says anything."""

_DEPTH = 10
"""Hits of a search: documents that the application pins may stand before the nearest."""

_STEPS = 100
_RIDGE = 1e-6
_RESAMPLES = 1000


class NotCalibrated(BridgeError):
    """The scores say nothing about which questions the index answers."""


def far_questions() -> list[str]:
    """Questions about everything, of which an index answers a few at most."""
    file = resources.files("bridge.evaluation").joinpath("data", QUESTIONS_FILE)
    return file.read_text("utf-8").splitlines()


def nearest_scores(
    proxy: OpenSearch,
    index: str,
    questions: Iterable[str],
    body_of: BodyOf,
    *,
    on_question: Callable[[], object] = lambda: None,
) -> NDArray[np.float64]:
    """The vector leg's score of the document nearest to each question, without questions for which the proxy searches
    no vectors: float64, (n_searched,). `proxy` is a client of the proxy."""

    def scores() -> Iterator[float]:
        for question in questions:
            score = _nearest_score(proxy, index, body_of(question))
            on_question()
            if score is not None:
                yield score

    return np.fromiter(scores(), dtype=np.float64)


def _nearest_score(proxy: OpenSearch, index: str, body: dict[str, Any]) -> float | None:
    content = msgspec.json.encode({**body, "size": _DEPTH, "_source": False})
    answer = exchange(proxy, "POST", f"/{index}/_search", body=content, headers={CONTROL_HEADER: "vector, explain"})
    if answer.status != 200:
        return None
    hits = msgspec.json.decode(answer.body)["hits"]["hits"]
    legs = [hit["_bridge"]["legs"] for hit in hits if "_bridge" in hit]
    return max((by["vector"]["score"] for by in legs if "vector" in by), default=None)


def calibrated(
    profile: IndexProfile, known: NDArray[np.float64], far: NDArray[np.float64], measurement: Measurement
) -> Calibration:
    """The calibration by the scores of questions that the index answers, and of those that it does not.

    Raises:
        NotCalibrated: there are too few of either, or the scores do not tell them apart.
    """
    for name, scores in (("that the index answers", known), ("that it does not answer", far)):
        if scores.size < FEWEST_QUERIES:
            raise NotCalibrated(
                f"vectors were searched for {scores.size} questions {name}, at least {FEWEST_QUERIES} are needed"
            )
    told_apart = auc(known, far)
    if told_apart.mean < LOWEST_AUC:
        raise NotCalibrated(
            f"scores of vectors tell the questions that the index answers from others in {told_apart.mean:.0%} of all "
            f"pairs, at least {LOWEST_AUC:.0%} are needed: try judged queries of people, or another encoder"
        )
    slope, middle = logistic_curve(known, far)
    return Calibration(
        slope=slope,
        middle=middle,
        encoder=profile.encoder.identity,
        generation=profile.generation,
        auc=round(told_apart.mean, 4),
        low=round(told_apart.low, 4),
        high=round(told_apart.high, 4),
        far_questions=far.size,
        measurement=msgspec.structs.replace(measurement, queries=known.size),
    )


def logistic_curve(known: NDArray[np.float64], far: NDArray[np.float64]) -> tuple[float, float]:
    """Slope and middle of the logistic function that fits best, both groups of scores weighing alike.

    Platt's targets (1999) keep the slope finite if no scores overlap; found by Newton's method on standard scores.
    """
    scores = np.concatenate([known, far])
    targets = np.repeat([(known.size + 1) / (known.size + 2), 1 / (far.size + 2)], [known.size, far.size])
    weights = np.repeat([0.5 / known.size, 0.5 / far.size], [known.size, far.size])
    mean, deviation = scores.mean(), max(scores.std(), float(np.finfo(np.float64).tiny))
    inputs = np.stack([(scores - mean) / deviation, np.ones_like(scores)], axis=1)
    line = np.zeros(2)
    for _ in range(_STEPS):
        probabilities = 1 / (1 + np.exp(-inputs @ line))
        gradient = inputs.T @ (weights * (probabilities - targets)) + _RIDGE * line
        curvature = (inputs.T * (weights * probabilities * (1 - probabilities))) @ inputs + _RIDGE * np.eye(2)
        line -= np.linalg.solve(curvature, gradient)
    slope, offset = line
    return float(slope / deviation), float(mean - offset * deviation / slope)


def auc(known: NDArray[np.float64], far: NDArray[np.float64]) -> Estimate:
    """The probability that a score of `known` is higher than one of `far`, equal ones counting half (the area under the
    ROC curve: Hanley and McNeil 1982, https://doi.org/10.1148/radiology.143.1.7063747), with a 95 % bootstrap interval
    over the questions of both."""
    wins = np.heaviside(known[:, None] - far, 0.5)
    random = np.random.default_rng(0)
    # A pair counts as often as both its questions are drawn.
    drawn_known = random.multinomial(known.size, np.full(known.size, 1 / known.size), size=_RESAMPLES)
    drawn_far = random.multinomial(far.size, np.full(far.size, 1 / far.size), size=_RESAMPLES)
    resampled = ((drawn_known @ wins) * drawn_far).sum(axis=1) / wins.size
    low, high = np.quantile(resampled, [0.025, 0.975])
    return Estimate(float(wins.mean()), float(low), float(high))
