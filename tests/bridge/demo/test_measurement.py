"""The demo's table holds every figure, fits a terminal, and never ends below one of its parts without advice."""

import io

from rich.console import Console

from bridge.demo.measurement import SERVED, STAGE_TITLES, StageMeasure, advice, measures_table
from bridge.evaluation.measures import Estimate


def measured(name: str, mrr: float, *, p_value: float | None = 0.0001) -> StageMeasure:
    return StageMeasure(name, Estimate(mrr, mrr - 0.05, mrr + 0.05), Estimate(0.5, 0.4, 0.6), p_value, 301.4)


def test_table_shows_interval_and_p_value_in_80_columns() -> None:
    output = io.StringIO()
    measures = [measured(name, 0.25, p_value=None if name == "bm25" else 0.0001) for name in STAGE_TITLES]
    Console(file=output, width=80).print(measures_table("126 questions as people type them", measures))
    text = output.getvalue()
    for shown in ("0.250 [0.200, 0.300]", "0.500", "0.0001", "301", *STAGE_TITLES.values()):
        assert shown in text
    assert max(len(line.rstrip()) for line in text.splitlines()) <= 80


def test_a_part_that_beats_the_whole_is_named_with_what_to_do() -> None:
    assert advice([measured("bm25", 0.1), measured("vector", 0.2), measured("rerank", 0.3)]) is None
    line = advice([measured("bm25", 0.1), measured("vector", 0.3), measured(SERVED, 0.2)])
    assert line is not None
    assert line.startswith("On these questions vectors alone (0.300) beats as served: gated and tuned (0.200)")
    assert "neural-bridge tune" in line
    assert "neural-bridge gate" in str(advice([measured("hybrid", 0.3), measured("rerank", 0.2)]))
