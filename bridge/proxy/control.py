"""The `x-bridge` request header: how far one search goes, and what its answer tells beyond the hits."""

from dataclasses import dataclass
from typing import get_args

from bridge.profile import Stage
from bridge.proxy.refusals import Refused

_STAGES: dict[str, Stage] = {stage: stage for stage in get_args(Stage)}
_WORDS = ("off", "explain", "passage", "union")


@dataclass(frozen=True, slots=True)
class Control:
    """`stage`: where to stop, None for all that the index enables; `off`: leave this search alone; `explain`:
    tell what each stage said; `passage`: show the winning passage among a hit's highlights; `union`: count what
    the bridge found in the total."""

    stage: Stage | None = None
    off: bool = False
    explain: bool = False
    passage: bool = False
    union: bool = False


def read_control(header: str | None) -> Control:
    """Reads the header's comma-separated words.

    Raises:
        Refused: 400; a word is unknown, or two stages are named.
    """
    words = {word for part in (header or "").split(",") if (word := part.strip().lower())}
    stages = words & _STAGES.keys()
    if (unknown := words - stages - set(_WORDS)) or len(stages) > 1:
        raise Refused(
            400,
            "illegal_argument_exception",
            f"header x-bridge: {header} ({', '.join(sorted(unknown)) or 'two stages'}): expected one of "
            f"off, {', '.join(_STAGES)}, and any of explain, passage, union",
        )
    return Control(stage=_STAGES[stages.pop()] if stages else None, **{word: word in words for word in _WORDS})
