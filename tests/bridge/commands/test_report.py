"""`neural-bridge report` as a table; tests/bridge/proxy/experiments tests the figures."""

from pathlib import Path

import pytest

from bridge.proxy.experiments.event_log import Click, Comparison, EventLog
from tests.command_line import answer, run


def logged(folder: Path, *events: Click | Comparison) -> str:
    log = EventLog(folder / "events.jsonl")
    for event in events:
        log.append(event)
    return str(folder / "events.jsonl")


def test_each_index_has_a_row_and_stray_clicks_are_counted(tmp_path: Path) -> None:
    compared = Comparison(3.0, "docs", "hybrid", overlap=0.5, rank_biased_overlap=0.5, took_ms=30.0)
    file = logged(tmp_path, compared, Click(2.0, "9", "a"))
    assert answer("report", file)["indices"][0]["searches"] == 1
    shown = run("report", file, env={"COLUMNS": "160"})
    assert "docs" in shown.stdout
    assert "1 clicks name no page or document of this log" in shown.stderr


@pytest.mark.case("S13")
def test_names_of_indices_cannot_steer_the_terminal(tmp_path: Path) -> None:
    compared = Comparison(3.0, "docs\x1b[2J", "hybrid", overlap=1.0, rank_biased_overlap=1.0, took_ms=30.0)
    printed = run("report", logged(tmp_path, compared), env={"COLUMNS": "200"}).stdout
    assert "\x1b" not in printed
    assert r"docs\x1b[2J" in printed
