"""Scores of documents that resemble each other."""

import numpy as np
import pytest

from bridge.search.smoothing import N_CANDIDATES, OWN_SHARE, smoothed

EAST, NORTH = [1.0, 0.0], [0.0, 1.0]


def _vectors(*rows: list[float]) -> np.ndarray:
    return np.array(rows, dtype=np.float32)


def test_a_document_moves_towards_its_neighbours_and_not_towards_strangers() -> None:
    scores = smoothed(np.array([2.0, 1.0, 0.0]), _vectors(EAST, NORTH, EAST))
    assert scores == pytest.approx([2 * OWN_SHARE, 1.0, 2 * (1 - OWN_SHARE)])


def test_near_neighbours_weigh_more_than_distant_ones() -> None:
    near, far = [0.99, np.sqrt(1 - 0.99**2)], [0.5, -np.sqrt(0.75)]
    towards_near = smoothed(np.array([0.0, 1.0, -1.0]), _vectors(EAST, near, far))
    assert towards_near[0] > 0


def test_documents_without_vectors_and_those_below_the_candidates_keep_their_scores() -> None:
    n = N_CANDIDATES + 3
    given = np.linspace(2, -2, n)
    vectors = np.tile(np.array(EAST, dtype=np.float32), (n, 1))
    vectors[4] = 0
    scores = smoothed(given, vectors)
    assert scores[4] == given[4]
    assert np.array_equal(scores[N_CANDIDATES:], given[N_CANDIDATES:])
    assert scores[0] < given[0]


@pytest.mark.parametrize("n", [0, 1])
def test_too_few_documents_to_have_neighbours_are_no_error(n: int) -> None:
    given = np.ones(n)
    assert np.array_equal(smoothed(given, np.ones((n, 2), dtype=np.float32)), given)
