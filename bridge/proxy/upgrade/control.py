"""The `x-bridge` request header: how far one search goes, and what its answer tells beyond the hits."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import get_args

import msgspec

from bridge.profile import IndexProfile, Stage
from bridge.proxy.transport.refusals import Refused

_STAGES: dict[str, Stage] = {stage: stage for stage in get_args(Stage)}
_WORDS = ("off", "explain", "passage", "union")
_LEGS = ("lexical", "expansion", "vector")


@dataclass(frozen=True, slots=True)
class Control:
    """`stage`: where to stop, None for all that the index enables; `off`: leave this search alone; `explain`:
    tell what each stage said; `passage`: show the winning passage among a hit's highlights; `union`: count what
    the bridge found in the total; `weights`: legs that weigh otherwise in the fusion than the index says."""

    stage: Stage | None = None
    off: bool = False
    explain: bool = False
    passage: bool = False
    union: bool = False
    weights: Mapping[str, float] = field(default_factory=dict)

    def weighed(self, profile: IndexProfile) -> IndexProfile:
        """The profile with the legs' weights for this search."""
        if not self.weights:
            return profile
        fusion = msgspec.structs.replace(profile.fusion, weights={**profile.fusion.weights, **self.weights})
        return msgspec.structs.replace(profile, fusion=fusion)


def read_control(header: str | None) -> Control:
    """Reads the header's comma-separated words, and the weights among them (`vector=2`).

    Raises:
        Refused: 400; a word is unknown, a weight is no number from 0 on, or two stages are named.
    """
    parts = [word for part in (header or "").split(",") if (word := part.strip().lower())]
    words = {word for word in parts if "=" not in word}
    given = [word.partition("=") for word in parts if "=" in word]
    weights = {leg.strip(): float(weight) for leg, _, weight in given if _weighs(leg.strip(), weight)}
    stages = words & _STAGES.keys()
    if words - stages - set(_WORDS) or len(stages) > 1 or len(weights) < len(given):
        raise Refused(
            400,
            "illegal_argument_exception",
            f"header x-bridge: {header}: expected one of off, {', '.join(_STAGES)}, any of explain, passage, union, "
            f"and one weight from 0 on for any of {', '.join(_LEGS)}, as vector=2",
        )
    return Control(
        stage=_STAGES[stages.pop()] if stages else None, weights=weights, **{word: word in words for word in _WORDS}
    )


def _weighs(leg: str, weight: str) -> bool:
    """Whether this is a leg's name and its weight."""
    try:
        return leg in _LEGS and 0 <= float(weight) < math.inf
    except ValueError:
        return False
