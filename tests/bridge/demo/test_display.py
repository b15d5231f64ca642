"""The demo's tables hold every figure."""

import io

from rich.console import Console
from rich.table import Table

from bridge.demo.comparison import Comparison, ExplainedHit
from bridge.demo.display import comparisons_table, measures_table, questions_line
from bridge.demo.measurement import StageMeasure, mrr_by_name
from bridge.evaluation.known_items import KnownItems, Question
from bridge.evaluation.measures import Estimate

RESULTS = [
    StageMeasure("bm25", Estimate(0.25, 0.2, 0.3), Estimate(0.5, 0.4, 0.6), 0.05, None, 12.4),
    StageMeasure("rerank", Estimate(0.61, 0.55, 0.66), Estimate(0.8, 0.75, 0.85), 0.4, 0.0001, 301.0),
]


def printed(table: Table) -> str:
    output = io.StringIO()
    Console(file=output, width=160).print(table)
    return output.getvalue()


def test_measures_show_interval_and_p_value() -> None:
    text = printed(measures_table(RESULTS))
    for shown in ("0.250 [0.200, 0.300]", "0.610 [0.550, 0.660]", "0.0001", "301", "BM25 alone"):
        assert shown in text


def test_questions_are_counted_by_their_words() -> None:
    questions = [Question(f"q{n}", "?", ("a",), "other" if n % 2 else "same") for n in range(300)]
    line = questions_line(KnownItems(questions, dropped=4))
    assert "300 known-item questions; 150 in words" in line
    assert "4 left out" in line


def test_check_prints_stages_by_name() -> None:
    assert mrr_by_name(RESULTS) == {"mrr_bm25": 0.25, "mrr_rerank": 0.61}


def test_comparison_shows_both_rankings() -> None:
    hit = ExplainedHit("random.randint", None, {"vector": 1}, 5.0)
    compared = [Comparison("throw dice", ["turtle.dot"], [hit]), Comparison("nothing found", [], [hit])]
    text = printed(comparisons_table(compared))
    for shown in ("throw dice", "turtle.dot", "random.randint", "vector 1", "nothing found", "–"):
        assert shown in text
