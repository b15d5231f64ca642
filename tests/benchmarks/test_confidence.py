"""How true probabilities are, and who answers whose questions."""

import numpy as np
import pytest

from benchmarks.confidence import Ground, calibration_error, measure
from bridge.models.encoder import Encoder
from tests.toys import make_toy_encoder


@pytest.mark.parametrize(
    ("answered", "others", "error"),
    [
        ([1.0, 1.0], [0.0, 0.0], 0.0),
        ([0.9, 0.9, 0.9, 0.1], [0.1, 0.1, 0.1, 0.9], 0.15),
        ([0.5], [0.5], 0.0),
        ([0.0], [1.0], 1.0),
    ],
    ids=["certain and right", "nine of ten, three of four right", "nothing known", "certain and wrong"],
)
def test_the_error_is_the_distance_of_probabilities_from_frequencies(
    answered: list[float], others: list[float], error: float
) -> None:
    assert calibration_error(np.array(answered), np.array(others)) == pytest.approx(error)


def test_each_collection_is_measured_by_its_own_queries_against_those_of_the_others(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    encoder = Encoder.load(str(make_toy_encoder(tmp_path_factory.mktemp("encoder")).path), threads=1)
    grounds = [
        Ground(name, [words], [words] * 20, [words] * 20)
        for name, words in (("shop", "red shoe"), ("wings", "wing flow"))
    ]
    figures = {ground.name: each for ground, each in measure(encoder, grounds)}
    assert figures.keys() == {"shop", "wings"}
    assert all((each.auc, each.low, each.high) == (1.0, 1.0, 1.0) for each in figures.values())
