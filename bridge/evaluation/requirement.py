"""`--require "ndcg@10>=bm25+0.01"`: a condition on measured figures, for the exit code of a build."""

import operator
import re
from collections.abc import Mapping
from dataclasses import dataclass

from bridge.errors import UsageError

_COMPARISONS = {">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt}

_SHAPE = re.compile(
    r"\s*(?:(?P<stage>[a-z0-9]+):)?(?P<figure>[a-z0-9_@]+)\s*(?P<comparison>>=|<=|>|<)\s*"
    r"(?P<base>[a-z][a-z0-9]*)?\s*(?P<offset>[+-]?\s*\d+(?:\.\d+)?)?\s*"
)

Figures = Mapping[str, Mapping[str, float]]
"""Figure by stage and name, stages in the order of measurement."""


@dataclass(frozen=True, slots=True)
class Requirement:
    """`stage`:`figure` `comparison` `base` + `offset`; `stage` None is the last measured stage, `base` None is 0."""

    text: str
    stage: str | None
    figure: str
    comparison: str
    base: str | None
    offset: float

    @classmethod
    def parse(cls, text: str) -> "Requirement":
        """Reads `[STAGE:]FIGURE COMPARISON [STAGE][±NUMBER]`.

        Raises:
            UsageError: the text has another form.
        """
        found = _SHAPE.fullmatch(text.lower())
        if found is None or (found["base"] is None and found["offset"] is None):
            raise UsageError(
                f"--require {text!r}: expected [STAGE:]FIGURE, a comparison, and a stage, a number or both; for "
                f"example 'ndcg@10>=bm25+0.01' or 'rerank:p95_ms<=200'"
            )
        offset = float((found["offset"] or "0").replace(" ", ""))
        return cls(text, found["stage"], found["figure"], found["comparison"], found["base"], offset)

    def is_met(self, figures: Figures) -> bool:
        """Whether the figures meet the requirement.

        Raises:
            UsageError: a stage was not measured, or there is no such figure.
        """
        stage = self.stage or list(figures)[-1]
        actual = self._figure(figures, stage)
        base = self._figure(figures, self.base) if self.base is not None else 0.0
        # Figures have four decimals, and 0.1 + 0.2 has seventeen.
        met: bool = _COMPARISONS[self.comparison](actual, round(base + self.offset, 6))
        return met

    def _figure(self, figures: Figures, stage: str) -> float:
        if stage not in figures:
            raise UsageError(f"--require {self.text!r}: stage {stage} was not measured: {', '.join(figures)} were")
        if self.figure not in figures[stage]:
            raise UsageError(
                f"--require {self.text!r}: there is no figure {self.figure}: there are {', '.join(figures[stage])}"
            )
        return figures[stage][self.figure]
