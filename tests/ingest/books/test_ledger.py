"""A ledger balances or says by how much it does not; a report shows what an operator has to know."""

import pytest

from bridge.errors import EXIT_DEAD_LETTERS, LedgerUnbalanced
from ingest.books.ledger import Ledger, Progress, Report


def report(ledger: Ledger, **more: object) -> Report:
    return Report("things", "a file", ledger, complete=True, seconds=2.0, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(("answered", "left"), [(2, r"\+1"), (4, "-1")])
def test_a_ledger_names_the_items_without_an_end_or_with_two(answered: int, left: str) -> None:
    ledger = Ledger(read=3)
    ledger.add("written", answered)
    with pytest.raises(LedgerUnbalanced, match=rf"3 items were read, {answered} accounted for \({left}\)"):
        ledger.check()


def test_every_way_to_end_counts() -> None:
    ledger = Ledger(read=5)
    for kind in ("written", "unchanged", "superseded", "dropped_by_pipeline", "dead_lettered"):
        ledger.add(kind)
    ledger.check()
    assert ledger.answered == 5


@pytest.mark.parametrize(
    ("ledger", "code"),
    [
        (Ledger(read=2, written=1, unchanged=1), 0),
        (Ledger(read=2, written=1, superseded=1), 0),
        (Ledger(read=2, written=1, dead_lettered=1), EXIT_DEAD_LETTERS),
        (Ledger(read=2, written=1, dropped_by_pipeline=1), EXIT_DEAD_LETTERS),
    ],
)
def test_the_exit_code_says_whether_every_document_is_in_the_index(ledger: Ledger, code: int) -> None:
    assert report(ledger).exit_code == code


def test_rates_leave_out_what_an_earlier_run_did() -> None:
    assert report(Ledger(read=10, written=10), skipped=6).documents_per_s == 2.0
    assert Progress(10, 10, 10, 10, skipped=6, total=None, seconds=2.0).rate == 2.0
    assert Progress(0, 0, 0, 0, skipped=0, total=None, seconds=0.0).rate == 0.0


def test_a_report_for_people_names_the_file_of_dead_letters_and_a_run_without_work() -> None:
    assert "why documents are dead letters: /state/dead.jsonl" in str(
        report(Ledger(read=1, dead_lettered=1), dead_letters="/state/dead.jsonl")
    )
    assert str(report(Ledger(read=1, unchanged=1))).endswith("nothing to do")
    assert report(Ledger(read=1, unchanged=1)).to_json()["documents_per_s"] == 0.5
