"""The bench of predicted queries gives the expansion stage what its choice says, no more."""

import pytest

from benchmarks.expansion import Choice, Predicted, Prediction

PREDICTIONS = [
    Prediction("wing", ["lift", "drag", "span"], [0.5, 2.0, -1.0]),
    Prediction("heat", ["flux", "mach"], [-2.0, 1.0]),
]


@pytest.mark.parametrize(
    ("share", "kept"),
    [
        pytest.param(1.0, [["lift", "drag", "span"], ["flux", "mach"]], id="all-as-they-came"),
        pytest.param(0.5, [["drag", "lift"], ["mach"]], id="best-half-over-all-passages"),
        pytest.param(0.0, [["drag"], []], id="the-best-one"),
    ],
)
def test_a_share_is_of_all_predictions_and_not_of_each_passage(share: float, kept: list[list[str]]) -> None:
    predicted = Predicted(PREDICTIONS, share)
    assert predicted.generate(["wing", "heat"], n_queries=3, max_new_tokens=8, seed=0) == kept


def test_a_choice_tells_what_it_is() -> None:
    assert str(Choice(6, 0.75, new_terms_only=True)) == "6 a passage, the best 75%, new words only"
    assert str(Choice(4, 1.0, new_terms_only=False)) == "4 a passage"
