"""Switches under load in their short form, and the certificates that they need."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.campaign.switches import SWITCHES, make_certificates


@pytest.mark.node
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_no_search_fails_and_no_ranking_is_mixed_while_an_operator_switches(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.campaign", "switches", "--seed", "1"]

    done = subprocess.run(
        [*command, "--folder", str(tmp_path), "--json"], capture_output=True, text=True, timeout=800, check=False
    )

    summary = json.loads(done.stdout)
    assert (done.returncode, summary["findings"]) == (0, {}), (tmp_path / "switches.jsonl").read_text("utf-8")
    assert summary["switches"] == {switch.__name__: 1 for switch in SWITCHES}
    # It proves nothing unless the switches were felt.
    assert summary["rankings that tell generations apart"] > 0
    assert summary["certificates renewed"] == 2
    assert summary["clock jumps seen"] == 4


def test_each_server_has_a_certificate_and_the_one_after_it(tmp_path: Path) -> None:
    certificates = make_certificates(tmp_path, "proxy")

    assert [each.name for each in certificates] == ["proxy-certificate.pem", "proxy-next-certificate.pem"]
    assert len({each.read_text() for each in certificates}) == 2
