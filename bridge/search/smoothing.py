"""Documents that resemble each other get scores that resemble each other.

A document's score becomes a mean of its own and those of its nearest neighbours among the first candidates (score
regularisation, Diaz 2005: https://doi.org/10.1145/1099554.1099722; it rests on the cluster hypothesis, that similar
documents answer the same queries).
"""

import numpy as np
from numpy.typing import NDArray

N_CANDIDATES = 50
N_NEIGHBOURS = 8
OWN_SHARE = 0.6
POWER = 4
"""A neighbour weighs its cosine to this power: distant ones hardly count."""


def smoothed(scores: NDArray[np.float64], vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    """The smoothed scores, float64 (n_documents,), input order; only the first `N_CANDIDATES` change.

    `scores`: fused z-scores, best first. `vectors`: float32 (n_documents, dimension), rows of unit length, in the same
    order; quantised ones do as well. A row of zeros stands for a document without a vector, which keeps its score.
    """
    result = np.array(scores, dtype=np.float64)
    first = result[:N_CANDIDATES].copy()
    cosines = vectors[:N_CANDIDATES] @ vectors[:N_CANDIDATES].T
    np.fill_diagonal(cosines, 0.0)  # no document is its own neighbour
    weights = np.clip(cosines, 0.0, None).astype(np.float64) ** POWER
    nearest = np.argsort(-weights, axis=1, kind="stable")[:, :N_NEIGHBOURS]
    weights = np.take_along_axis(weights, nearest, axis=1)
    totals = weights.sum(axis=1)
    has_neighbours = totals > 0
    means = (weights * first[nearest]).sum(axis=1)[has_neighbours] / totals[has_neighbours]
    result[: len(first)][has_neighbours] = OWN_SHARE * first[has_neighbours] + (1 - OWN_SHARE) * means
    return result
