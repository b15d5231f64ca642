"""The cascade: a small cross-encoder reads every passage, the large one only the best of them (Wang et al. 2011,
"A cascade ranking model for efficient ranked retrieval": https://doi.org/10.1145/2009916.2009934).

Pure: which passages the large model reads, and how the scores of both models become one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bridge.search.fusion import in_range

STAGES_APART = 1.0
"""Logits between the last passage that the large model read and the first that it did not: far enough for the two to
stay apart after the logistic function and in single precision."""


@dataclass(frozen=True, slots=True)
class CascadeRequest:
    """How many passages the large model reads, and the fused score of each passage's document.

    The choice is by `(1 - prior_weight) × small model's score + prior_weight × prior score`, both stretched to 0…1.
    """

    depth: int
    prior_scores: Sequence[float]
    prior_weight: float


def select_for_large_model(
    scores: Sequence[float],
    *,
    depth: int,
    preferences: Sequence[float] | None = None,
    top_n: int | None = None,
    margin: float | None = None,
) -> list[int]:
    """Indices of the passages to send to the large model, best first: the top `depth` by `preferences` if given, else
    by `scores`.

    `top_n` and `margin` shorten the list: a passage that the small model scores more than `margin` logits below its
    `top_n`-th is left out, since models that differ by less cannot bring it among the first.
    """
    order = preferences or scores
    ranked = sorted(range(len(scores)), key=lambda index: -order[index])[:depth]
    if top_n is None or margin is None or top_n > len(ranked):
        return ranked
    lowest = sorted((scores[index] for index in ranked), reverse=True)[top_n - 1] - margin
    return [index for index in ranked if scores[index] >= lowest]


def merge_scores(first: Sequence[float], second: Mapping[int, float]) -> list[float]:
    """One score per passage, in input order: the large model's (`second`, at least one) if it read the passage.

    The small model's scores (`first`) of the others are shifted below all of these, which keeps their distances. Scores
    of a model that are too large for this are made smaller first, and keep their order.
    """
    first = in_range(first)
    second = dict(zip(second, in_range([*second.values()]), strict=True))
    rest = [score for index, score in enumerate(first) if index not in second]
    shift = min(second.values()) - STAGES_APART - max(rest, default=0.0)
    return [second.get(index, score + shift) for index, score in enumerate(first)]
