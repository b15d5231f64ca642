"""Whether label-free questions lead where judgements lead."""

from collections.abc import Mapping

import numpy as np
import pytest

from bridge.errors import UsageError
from bridge.evaluation.agreement import MEASURE, agreement, kendall_tau
from bridge.evaluation.measures import Evaluation
from bridge.evaluation.report import agreement_in_words, agreement_to_json
from bridge.evaluation.stages import StageResult, StageRun


def results(means: Mapping[str, float]) -> list[StageResult]:
    return [
        StageResult(
            name,
            StageRun("lexical", {"q": []}, np.zeros(1)),
            Evaluation(["q"], {MEASURE: np.array([mean])}),
            None,
        )
        for name, mean in means.items()
    ]


def test_gains_are_compared_by_their_sign_and_stages_by_their_order() -> None:
    label_free = results({"bm25": 0.5, "expansion": 0.7, "hybrid": 0.6, "rerank": 0.4, "cascade": 0.4})
    judged = results({"bm25": 0.3, "expansion": 0.31, "hybrid": 0.4, "rerank": 0.35})
    found = agreement(label_free, judged)
    assert list(found.gains) == ["expansion", "hybrid", "rerank"]
    assert list(found.gains["rerank"]) == pytest.approx([-0.1, 0.05])
    assert found.same_sign == 2
    # Three of the six pairs stand in the same order, three in the opposite one.
    assert found.kendall_tau == pytest.approx(0.0)
    assert agreement_to_json(found)["agreement"]["same_sign"] == 2
    assert "for 2 of 3 stages" in agreement_in_words(found)


@pytest.mark.parametrize(
    ("second", "tau"), [([1, 2, 3], 1.0), ([3, 2, 1], -1.0), ([1, 3, 2], pytest.approx(1 / 3)), ([1, 1, 1], 0.0)]
)
def test_kendalls_tau_counts_pairs(second: list[float], tau: float) -> None:
    assert kendall_tau([1, 2, 3], second) == tau


def test_one_stage_cannot_be_put_in_order() -> None:
    with pytest.raises(UsageError, match="two at least"):
        agreement(results({"bm25": 0.5, "hybrid": 0.6}), results({"bm25": 0.5, "rerank": 0.6}))
