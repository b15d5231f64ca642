"""The cascade: a small cross-encoder reads every passage, the large one only the best of them (Wang et al. 2011,
"A cascade ranking model for efficient ranked retrieval": https://doi.org/10.1145/2009916.2009934).

Pure: which passages go on, and what two models' scores become.
"""

from collections.abc import Mapping, Sequence

STAGES_APART = 1.0
"""Logits between the last that the large model read and the first that it did not: far enough for the two to stay
apart after the logistic function and in single precision."""


def going_on(
    scores: Sequence[float],
    *,
    depth: int,
    preferences: Sequence[float] | None = None,
    top_n: int | None = None,
    margin: float | None = None,
) -> list[int]:
    """The passages that the large model reads, best first: the `depth` best by the small one's `scores`, or by
    `preferences` where more is known of them.

    With `top_n` and `margin` it may stop earlier: a passage that the small model puts more than `margin` logits
    below its `top_n`-th is left where it is, since models that differ by less cannot bring it among the first.
    """
    order = preferences or scores
    ranked = sorted(range(len(scores)), key=lambda index: -order[index])[:depth]
    if top_n is None or margin is None or top_n > len(ranked):
        return ranked
    lowest = sorted((scores[index] for index in ranked), reverse=True)[top_n - 1] - margin
    return [index for index in ranked if scores[index] >= lowest]


def joined(first: Sequence[float], second: Mapping[int, float]) -> list[float]:
    """One score per passage, input order: the large model's (`second`, at least one) where it read the passage; the
    others under all of these, as far apart as the small model (`first`) puts them."""
    rest = [score for index, score in enumerate(first) if index not in second]
    shift = min(second.values()) - STAGES_APART - max(rest, default=0.0)
    return [second.get(index, score + shift) for index, score in enumerate(first)]
