"""How alike two rankings are."""

from collections.abc import Hashable, Sequence

DEPTH = 10
"""How much of two rankings is compared: a first page."""
PERSISTENCE = 0.9
"""How likely a reader is to look at the next hit: the first ten ranks then weigh 65 % of an endless list."""


def overlap(one: Sequence[Hashable], other: Sequence[Hashable]) -> float:
    """The share of the longer list's documents that both have; 0…1."""
    return len(set(one) & set(other)) / max(len(one), len(other))


def rank_biased_overlap(
    one: Sequence[Hashable], other: Sequence[Hashable], *, persistence: float = PERSISTENCE
) -> float:
    """How alike two rankings are, the first ranks counting most; 0…1, 1 for equal ones.

    Webber, Moffat, Zobel (TOIS 2010), cut off at the longer list and scaled so that equal lists give 1.
    """
    depth = max(len(one), len(other))
    agreement = sum(
        persistence ** (d - 1) * len(set(one[:d]) & set(other[:d])) / max(len(one[:d]), len(other[:d]))
        for d in range(1, depth + 1)
    )
    return agreement * (1 - persistence) / (1 - persistence**depth)
