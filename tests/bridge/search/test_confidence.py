"""When a text leg ranks alone."""

from collections.abc import Sequence

import pytest

from bridge.records import Hit
from bridge.search.flow import confident_leg


def hits(*scores: float) -> list[Hit]:
    return [Hit("i", str(n), score) for n, score in enumerate(scores)]


@pytest.mark.parametrize(
    ("scores", "lead", "confident"),
    [
        ([9.0, 3.0], 3.0, True),
        ([9.0, 3.1], 3.0, False),
        ([9.0, 3.0], None, False),
        ([9.0], 3.0, False),
        ([], 3.0, False),
        ([0.0, 0.0], 3.0, False),
    ],
    ids=["far ahead", "not far enough", "no rule", "one hit", "no hit", "no scores"],
)
def test_a_first_hit_far_ahead_is_confidence(scores: Sequence[float], lead: float | None, confident: bool) -> None:
    found = {"expansion": hits(*scores), "vector": hits(0.9, 0.1)}
    assert confident_leg(found, {"expansion": 1.0, "vector": 1.0}, lead) == ("expansion" if confident else None)


def test_a_leg_that_does_not_count_is_not_asked() -> None:
    found = {"lexical": hits(9.0, 1.0), "expansion": hits(2.0, 1.9), "vector": hits(0.9, 0.1)}
    assert confident_leg(found, {"expansion": 1.0, "vector": 1.0}, 2.0) is None
    assert confident_leg(found, {"vector": 1.0}, 2.0) is None
    assert confident_leg({"vector": hits(0.9, 0.1)}, {"expansion": 1.0, "vector": 1.0}, 2.0) is None
