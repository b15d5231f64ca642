"""Drawing from the likeliest words."""

import numpy as np
import pytest

from bridge.models.generation import TOP_K
from bridge.models.onnx_engine import sample_top_k


def test_words_are_drawn_as_often_as_they_are_likely_and_none_below_the_likeliest() -> None:
    probabilities = np.array([0.4, 0.2, *[0.05] * 8, *[0.0001] * 50])
    probabilities /= probabilities.sum()
    n_draws = 20_000
    logits = np.tile(np.log(probabilities).astype(np.float32) + 7, (n_draws, 1))
    chosen, log_probability = sample_top_k(logits, np.random.default_rng(1))
    shares = np.bincount(chosen, minlength=60) / n_draws
    assert shares[:TOP_K] == pytest.approx(probabilities[:TOP_K] / probabilities[:TOP_K].sum(), abs=0.01)
    assert shares[TOP_K:].sum() == 0
    assert np.exp(log_probability) == pytest.approx(probabilities[chosen], rel=1e-3)


def test_fewer_words_than_are_drawn_from_are_no_error() -> None:
    chosen, _ = sample_top_k(np.zeros((5, 3), dtype=np.float32), np.random.default_rng(1))
    assert set(chosen.tolist()) <= {0, 1, 2}
