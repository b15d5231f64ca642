"""The `x-bridge` request header: how far one search goes, and whether it explains itself."""

from dataclasses import dataclass
from typing import get_args

from bridge.profile import Stage
from bridge.proxy.refusals import Refused

_STAGES: dict[str, Stage] = {stage: stage for stage in get_args(Stage)}


@dataclass(frozen=True, slots=True)
class Control:
    """`stage`: where to stop, None for all that the index enables; `off`: leave this search alone."""

    stage: Stage | None = None
    off: bool = False
    explain: bool = False


def read_control(header: str | None) -> Control:
    """Reads the header's comma-separated words.

    Raises:
        Refused: 400; a word is unknown, or two stages are named.
    """
    words = {word for part in (header or "").split(",") if (word := part.strip().lower())}
    stages = words & _STAGES.keys()
    if (unknown := words - stages - {"off", "explain"}) or len(stages) > 1:
        raise Refused(
            400,
            "illegal_argument_exception",
            f"header x-bridge: {header} ({', '.join(sorted(unknown)) or 'two stages'}): expected one of "
            f"off, {', '.join(_STAGES)}, and optionally explain",
        )
    return Control(stage=_STAGES[stages.pop()] if stages else None, off="off" in words, explain="explain" in words)
