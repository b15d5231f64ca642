"""The demo's table holds every figure, fits a terminal, and never ends below one of its parts without advice."""

import io

import numpy as np
from rich.console import Console

from bridge.demo.measurement import MRR, RECALL, SERVED, STAGE_TITLES, advice, measures_table
from bridge.evaluation.measures import Evaluation
from bridge.evaluation.stages import StageResult, StageRun


def result(name: str, mrr: float) -> StageResult:
    """A stage whose reciprocal ranks are all `mrr`."""
    query_ids = [f"q{n}" for n in range(40)]
    values = {MRR: np.full(len(query_ids), mrr), RECALL: np.full(len(query_ids), 0.5)}
    run = StageRun("lexical", {}, np.full(len(query_ids), 301.4))
    return StageResult(name, run, Evaluation(query_ids, values), None)


def test_table_shows_interval_and_p_value_in_80_columns() -> None:
    output = io.StringIO()
    results = [result(name, 0.25 if name == "bm25" else 0.75) for name in STAGE_TITLES]
    Console(file=output, width=80).print(measures_table("126 questions as people type them", results))
    text = output.getvalue()
    for shown in ("0.250 [0.250, 0.250]", "0.750 [0.750, 0.750]", "0.500", "0.0001", "301", *STAGE_TITLES.values()):
        assert shown in text
    assert max(len(line.rstrip()) for line in text.splitlines()) <= 80


def test_a_part_that_beats_the_whole_is_named_with_what_to_do() -> None:
    assert advice([result("bm25", 0.1), result("vector", 0.2), result("rerank", 0.3)]) is None
    line = advice([result("bm25", 0.1), result("vector", 0.3), result(SERVED, 0.2)])
    assert line is not None
    assert line.startswith("“vectors alone” has a higher MRR@10 than “as served: gated and tuned” (p ")
    assert "Use it with the header `x-bridge: lexical`, or judge more queries" in line
    assert "neural-bridge tune --apply" in line


def test_a_difference_within_the_noise_is_called_so() -> None:
    better = result("vector", 0.2)
    better.evaluation.values[MRR][0] = 1.0
    line = str(advice([better, result(SERVED, 0.2)]))
    assert "but 40 questions are too few to say which is better (p " in line
    assert "Keep the settings; to be sure, judge more queries" in line
