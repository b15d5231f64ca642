"""`neural-bridge judgements` turns one form of judgements into another."""

from pathlib import Path

import pytest

from bridge.errors import UsageError
from bridge.evaluation.click_judgements import FEWEST_PAGES
from bridge.evaluation.judgement_files import read_judgement_list
from bridge.proxy.experiments.event_log import Click, EventLog, Impression
from tests.command_line import answer, run


def test_clicks_become_a_list_of_the_workbench(tmp_path: Path) -> None:
    log, output = tmp_path / "events.jsonl", tmp_path / "judged.json"
    shown = [("docs", "a"), ("docs", "b")]
    for n in range(FEWEST_PAGES):
        EventLog(log).append(Impression(1.0, str(n), "docs", "hybrid", shown[:1], shown[1:], 0, 0, 9, "tent", 1, shown))
        EventLog(log).append(Click(2.0, str(n), "b"))
    written = answer("judgements", str(output), "--clicks", str(log))
    assert (written["queries"], written["ratings"]) == (1, 2)
    assert read_judgement_list(output).qrels == {"tent": {"a": 0, "b": 1}}


def test_trec_judgements_become_csv(tmp_path: Path) -> None:
    (tmp_path / "queries").write_text("1\ttent\n", encoding="utf-8")
    (tmp_path / "qrels").write_text("1 0 a 2\n", encoding="utf-8")
    files = ("--queries", str(tmp_path / "queries"), "--qrels", str(tmp_path / "qrels"))
    done = run("judgements", str(tmp_path / "judged.csv"), *files)
    assert "1 queries with 1 ratings from queries with qrels are in" in done.stdout
    assert read_judgement_list(tmp_path / "judged.csv").qrels == {"tent": {"a": 2}}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "give one kind of judgements"),
        (["--ubi", "--clicks", "a"], "give one kind of judgements"),
        (["--queries", "a"], "belong together"),
        (["--judgements", "out.csv"], r"out\.csv would be overwritten"),
    ],
)
def test_options_that_name_no_judgements_or_several(options: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        run("judgements", "out.csv", *options)
