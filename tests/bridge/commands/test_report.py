"""`neural-bridge report` as a table; tests/bridge/proxy/experiments tests the figures."""

from pathlib import Path

import pytest

from bridge.errors import UsageError
from bridge.proxy.experiments.event_log import Click, Comparison, Event, EventLog, Impression
from tests.command_line import answer, run


def logged(folder: Path, *events: Event) -> str:
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


def impression(name: str, words: str | None) -> Impression:
    shown = [("docs", "a"), ("docs", "b")]
    return Impression(1.0, name, "docs", "hybrid", shown[:1], shown[1:], 0.5, 0.5, 9.0, words, 1, shown)


def test_pages_with_words_are_written_as_ubi_and_the_others_counted(tmp_path: Path) -> None:
    exported = tmp_path / "events.ndjson"
    file = logged(tmp_path, impression("1", "tent"), impression("2", None), Click(2.0, "1", "b"))
    done = run("report", file, "--to-ubi", str(exported))
    assert "1 of 2 pages have no words and are left out" in done.stderr
    assert answer("report", str(exported))["indices"][0]["bridge_wins"] == 1


def test_what_cannot_be_written_as_ubi_is_said(tmp_path: Path) -> None:
    file = logged(tmp_path, impression("1", None))
    with pytest.raises(UsageError, match=r"no page with its query: set proxy\.event_log_queries"):
        run("report", file, "--to-ubi", str(tmp_path / "events.ndjson"))
    with pytest.raises(UsageError, match="is the event log itself"):
        run("report", file, "--to-ubi", file)
    file = logged(tmp_path, impression("2", "tent"))
    with pytest.raises(UsageError, match="cannot be written: No such file"):
        run("report", file, "--to-ubi", str(tmp_path / "missing" / "events.ndjson"))
