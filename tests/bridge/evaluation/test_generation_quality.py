"""Which generation's vectors are worth more, by judgements."""

import pytest

from bridge.evaluation.generation_quality import GenerationQuality


@pytest.mark.parametrize(
    ("low", "high", "is_worse"),
    [
        pytest.param(-0.2, -0.1, True, id="certainly"),
        pytest.param(-0.2, 0.1, False, id="perhaps"),
        pytest.param(0.1, 0.2, False, id="better"),
    ],
)
def test_only_a_certain_loss_speaks_against_a_generation(low: float, high: float, is_worse: bool) -> None:
    quality = GenerationQuality("list.csv", 50, "nDCG@10", 0.5, 0.4, -0.1, low, high, 0.01)
    assert quality.is_worse == is_worse
