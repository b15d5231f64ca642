"""Compares label-free questions with human judgements: do both lead to the same conclusions?"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from bridge.errors import UsageError
from bridge.evaluation.stages import StageResult

MEASURE = "nDCG@10"


@dataclass(frozen=True, slots=True)
class Agreement:
    """The gain of each stage over the first one, by label-free questions and by judgements.

    `kendall_tau` compares the order of all stages: 1 is the same order, -1 the opposite.
    """

    gains: dict[str, tuple[float, float]]
    kendall_tau: float

    @property
    def same_sign(self) -> int:
        """The number of stages for which both gains are positive or both are negative."""
        return sum(label_free * judged > 0 for label_free, judged in self.gains.values())


def agreement(label_free: Sequence[StageResult], judged: Sequence[StageResult]) -> Agreement:
    """Compares two measurements of the same stages.

    Raises:
        UsageError: they share fewer than two stages.
    """
    means = [{each.name: each.evaluation.mean(MEASURE) for each in results} for results in (label_free, judged)]
    names = [name for name in means[0] if name in means[1]]
    if len(names) < 2:
        raise UsageError("label-free and judged conclusions are compared by stages: measure two at least (--stages)")
    first, *others = names
    gains = {name: (means[0][name] - means[0][first], means[1][name] - means[1][first]) for name in others}
    return Agreement(gains, kendall_tau(*([each[name] for name in names] for each in means)))


def kendall_tau(first: Sequence[float], second: Sequence[float]) -> float:
    """(concordant - discordant pairs) / all pairs (Kendall 1938); ties count as neither."""
    pairs = list(combinations(zip(first, second, strict=True), 2))
    signs = [(one[0] - other[0]) * (one[1] - other[1]) for one, other in pairs]
    return (sum(sign > 0 for sign in signs) - sum(sign < 0 for sign in signs)) / len(pairs)
