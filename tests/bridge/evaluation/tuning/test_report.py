"""What a tuning shows: figures with their intervals, settings in words, and a picture."""

from dataclasses import replace
from pathlib import Path

from rich.console import Console

from bridge.evaluation.measures import Estimate
from bridge.evaluation.tuning.report import front_table, in_words, plot_front
from bridge.evaluation.tuning.search import CrossValidated
from bridge.evaluation.tuning.setting import Setting
from bridge.profile import Measurement, TuningRecord
from tests.bridge.evaluation.tuning.by_hand import PROFILE

DEFAULT = Setting.of(PROFILE, "lexical")
QUICK = CrossValidated(
    budget_ms=None,
    setting=DEFAULT,
    tuned=0.5,
    default=0.5,
    difference=Estimate(0.0, 0.0, 0.0),
    p_value=1.0,
    p95_ms=4.6,
)
CHOSEN = replace(
    QUICK,
    setting=Setting.of(PROFILE, "rerank"),
    tuned=0.625,
    difference=Estimate(0.125, -0.01, 0.25),
    p_value=0.031,
    p95_ms=120.0,
)
RECORD = TuningRecord(
    Measurement("clicks\x1b[2J", 1234, "nDCG@10", "2026-01-01T00:00:00Z"), 5, None, 0.5, 0.625, 0, 0, []
)


def test_the_table_has_a_row_for_each_budget_and_nothing_in_it_steers_the_terminal() -> None:
    console = Console(width=160, record=True)
    console.print(front_table([QUICK, CHOSEN], RECORD))
    shown = console.export_text()
    assert r"1,234 queries (clicks\x1b[2J)" in shown
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in shown.splitlines() if line.startswith("│")]
    assert rows == [
        ["5", "0.500", "+0.000 [+0.000, +0.000]", "lexical"],
        ["120", "0.625", "+0.125 [-0.010, +0.250]", str(CHOSEN.setting)],
    ]


def test_words_name_both_settings_and_the_difference_between_them() -> None:
    assert in_words(DEFAULT, CHOSEN, RECORD).splitlines() == [
        "now:    lexical",
        f"chosen: {CHOSEN.setting}",
        "held out, 5 folds: 0.5000 → 0.6250, difference +0.1250 [-0.0100, +0.2500], p 0.0310",
    ]


def test_the_picture_is_written_into_a_new_folder(tmp_path: Path) -> None:
    file = tmp_path / "new" / "front.png"
    plot_front(file, "title", "RR@10", [QUICK, CHOSEN], CHOSEN)
    assert file.read_bytes().startswith(b"\x89PNG")
