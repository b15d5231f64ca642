"""Where there is no terminal, the demo writes lines; the tables hold every figure."""

import io
import time

import pytest
from rich.console import Console

from bridge.demo import display as display_module
from bridge.demo.comparison import Comparison, ExplainedHit
from bridge.demo.display import Display
from bridge.demo.measurement import StageResult, mrr_by_name
from bridge.evaluation.known_items import KnownItems, Question
from bridge.evaluation.measures import Estimate


@pytest.fixture
def output() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def display(output: io.StringIO) -> Display:
    return Display(Console(file=output, width=160))


RESULTS = [
    StageResult("lexical", Estimate(0.25, 0.2, 0.3), Estimate(0.5, 0.4, 0.6), 0.05, None, 12.4),
    StageResult("rerank", Estimate(0.61, 0.55, 0.66), Estimate(0.8, 0.75, 0.85), 0.4, 0.0001, 301.0),
]


def test_measures_show_interval_and_p_value(display: Display, output: io.StringIO) -> None:
    questions = [Question(f"q{n}", "?", ("a",), "other" if n % 2 else "same") for n in range(300)]
    display.measures(RESULTS, KnownItems(questions, dropped=4))
    text = output.getvalue()
    for shown in (
        "0.250 [0.200, 0.300]",
        "0.610 [0.550, 0.660]",
        "0.0001",
        "301",
        "300 known-item questions; 150 in words",
        "BM25 alone",
    ):
        assert shown in text


def test_check_prints_stages_by_name() -> None:
    assert mrr_by_name(RESULTS) == {"mrr_bm25": 0.25, "mrr_rerank": 0.61}


def test_comparison_shows_both_rankings(display: Display, output: io.StringIO) -> None:
    hit = ExplainedHit("random.randint", None, {"vector": 1}, 5.0)
    display.comparisons([Comparison("throw dice", ["turtle.dot"], [hit]), Comparison("nothing found", [], [hit])])
    text = output.getvalue()
    for shown in ("throw dice", "turtle.dot", "random.randint", "vector 1", "nothing found", "–"):
        assert shown in text


def test_progress_without_a_terminal_writes_a_line_now_and_then(
    display: Display, output: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(display_module, "LINE_EVERY_S", 0.01)
    with display.progress("reading", 100) as show:
        show(0)
        for done in (40, 80):
            time.sleep(0.02)
            show(done)
    lines = output.getvalue().splitlines()
    assert len(lines) == 2
    assert "80 of 100" in lines[1]


def test_step_says_when_it_begins_and_how_long_it_took(display: Display, output: io.StringIO) -> None:
    with display.step("starting the node"):
        assert "starting the node …" in output.getvalue()
    assert output.getvalue().rstrip().endswith(" s")
