"""The report sums up comparisons, interleaved pages and clicks."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from bridge.cli import cli
from bridge.errors import UsageError
from bridge.proxy.experiments.event_log import Click, Comparison, Event, EventLog, Impression
from bridge.proxy.experiments.event_report import read_events, report, sign_test


def impression(name: str, own: list[str], bridge: list[str]) -> Impression:
    ours, theirs = ([("docs", doc_id) for doc_id in side] for side in (own, bridge))
    return Impression(1.0, name, "docs", "hybrid", ours, theirs, 0.5, 0.25, 10.0)


def test_the_report_counts_whose_documents_were_clicked(tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    events: list[Event] = [
        impression("1", ["a"], ["b", "c"]),
        impression("2", ["a"], ["b"]),
        impression("3", ["a"], ["b"]),
        impression("4", ["a"], ["b"]),
        Click(2.0, "1", "b"),
        Click(2.0, "1", "b"),
        Click(2.0, "1", "c"),
        Click(2.0, "1", "a"),
        Click(2.0, "2", "a"),
        Click(2.0, "3", "a"),
        Click(2.0, "3", "b"),
        Click(2.0, "3", "x"),
        Click(2.0, "9", "a"),
        Comparison(3.0, "docs", "hybrid", overlap=1.0, rank_biased_overlap=1.0, took_ms=30.0),
        Comparison(3.0, "other", "hybrid", overlap=1.0, rank_biased_overlap=1.0, took_ms=5.0),
    ]
    log = EventLog(file)
    for event in events:
        log.append(event)

    found = report(read_events(file))

    docs, other = found.indices
    assert (docs.searches, docs.overlap, docs.rank_biased_overlap, docs.p50_ms) == (5, 0.6, 0.4, 10.0)
    assert (docs.interleaved, docs.bridge_wins, docs.own_wins, docs.ties, docs.p_value) == (4, 1, 1, 1, 1.0)
    assert (other.index, other.searches, other.p_value) == ("other", 1, None)
    assert found.stray_clicks == 2
    shown = CliRunner().invoke(cli, ["report", str(file), "--json"])
    assert json.loads(shown.stdout)["indices"][0]["bridge_wins"] == 1


def test_half_a_last_line_is_left_out_and_another_file_refused(tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    EventLog(file).append(Click(1.0, "1", "a"))
    with file.open("ab") as log:
        log.write(b'{"event":"cli')
    assert len(list(read_events(file))) == 1

    file.write_text('{"event":"other"}\n')
    with pytest.raises(UsageError, match=r"events\.jsonl:1 "):
        list(read_events(file))


@pytest.mark.parametrize(
    ("wins", "losses", "p_value"), [(0, 0, None), (5, 5, 1.0), (10, 0, 2 / 1024), (0, 3, 0.25), (9, 1, 22 / 1024)]
)
def test_the_sign_test_is_exact(wins: int, losses: int, p_value: float | None) -> None:
    assert sign_test(wins, losses) == p_value
