"""Does the application's own ranking know what is wanted? Then nothing is added to it.

A first hit far ahead of the second one is what a query for one certain document looks like, such as a title.
"""

from collections.abc import Mapping, Sequence

from bridge.records import Hit

CONFIDENT = "+confident"
"""What the names of the stages of such an answer end with."""

TEXT_LEGS = ("expansion", "lexical")


def confident_leg(found: Mapping[str, Sequence[Hit]], weights: Mapping[str, float], lead: float | None) -> str | None:
    """The text leg among those that count whose first score is at least `lead` times its second one; None where
    there is no such leg, or `lead` is None. A leg with one hit alone says nothing."""
    for leg in TEXT_LEGS:
        if lead is not None and weights.get(leg, 0.0) > 0 and len(hits := found.get(leg, ())) > 1:
            return leg if hits[0].score >= lead * hits[1].score > 0 else None
    return None
