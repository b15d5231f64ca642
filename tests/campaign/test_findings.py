"""Findings last beyond the run, and the next run goes on after it."""

import json
from pathlib import Path

import click
import pytest

from tests.campaign.findings import MAX_OF_A_KIND, Findings


def test_a_run_goes_on_where_the_one_before_was_cut_off(tmp_path: Path) -> None:
    first = Findings(tmp_path, "fuzz", 5)
    first.note("off: body", number=3)
    first.next = 40
    first.save()

    second = Findings(tmp_path, "fuzz", 5)

    assert (second.next, second.counts) == (40, {"off: body": 1})


def test_another_seed_needs_another_folder(tmp_path: Path) -> None:
    Findings(tmp_path, "fuzz", 5).save()

    with pytest.raises(click.UsageError, match="seed 5"):
        Findings(tmp_path, "fuzz", 6)


def test_all_findings_are_counted_and_some_of_a_kind_written_down(tmp_path: Path) -> None:
    findings = Findings(tmp_path, "fuzz", 5)
    for number in range(MAX_OF_A_KIND + 5):
        findings.note("off: body", number=number)

    lines = (tmp_path / "fuzz.jsonl").read_text("utf-8").splitlines()
    assert [json.loads(line)["number"] for line in lines] == list(range(MAX_OF_A_KIND))
    assert findings.counts["off: body"] == MAX_OF_A_KIND + 5
