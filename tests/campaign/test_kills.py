"""Kills in their short form, and differences that the comparison must see."""

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest
from opensearchpy import OpenSearch

from ingest.runs.ingest import NOTE_KEY
from tests.campaign.application import Application
from tests.campaign.commands import Commands
from tests.campaign.findings import Findings
from tests.campaign.kills import KILLS_A_TRIAL, WAYS, Trial


@pytest.mark.node
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_what_is_killed_is_completed_exactly_in_every_way(tmp_path: Path) -> None:
    n_kills = KILLS_A_TRIAL * len(WAYS)
    command = [sys.executable, "-m", "tests.campaign", "kills", "--seed", "1", "--n", str(n_kills)]

    done = subprocess.run(
        [*command, "--folder", str(tmp_path), "--json"], capture_output=True, text=True, timeout=800, check=False
    )

    summary = json.loads(done.stdout)
    assert (done.returncode, summary["findings"]) == (0, {}), (tmp_path / "kills.jsonl").read_text("utf-8")
    assert summary["kills"] >= n_kills
    assert all(summary[f"kills of {way.__name__}"] for way in WAYS)


def test_a_lost_document_and_another_writer_are_found(opensearch: OpenSearch, fresh_index: str, tmp_path: Path) -> None:
    findings = Findings(tmp_path, "kills", 1)
    commands = Commands({}, tmp_path)
    trial = Trial(2, opensearch, commands, tmp_path, random.Random(1), findings, ("", ""), {}, fresh_index)
    application = Application(opensearch, fresh_index, random.Random(1))
    application.create(5, knn=False)
    trial.nobody_else_wrote(application)
    trial.settings_are_restored(fresh_index)
    assert not findings.counts

    opensearch.delete(index=fresh_index, id="d1")
    opensearch.update(index=fresh_index, id="d2", body={"doc": {"title": "of another"}})
    opensearch.indices.put_settings(index=fresh_index, body={"index.refresh_interval": "-1"})
    opensearch.indices.put_mapping(index=fresh_index, body={"_meta": {NOTE_KEY: {"refresh_interval": None}}})
    trial.nobody_else_wrote(application)
    trial.documents_are(application.documents, encoder="")

    assert {kind.removeprefix("backfill_beside: ") for kind in findings.counts} >= {
        "documents differs",
        "versions differs",
        "the last sequence number differs",
        "ids differs",
        "a document differs",
        "the refresh interval differs",
        "the note of settings to restore differs",
        "no profile",
    }
