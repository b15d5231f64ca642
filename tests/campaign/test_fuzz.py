"""The campaign in its short form, on a real node and a real proxy process."""

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.node
@pytest.mark.slow
@pytest.mark.parametrize("run", ["fuzz", "work"])
def test_a_short_run_compares_upgrades_and_measures(run: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.campaign", run, "--seed", "1", "--requests", "60"]

    done = subprocess.run(
        [*command, "--folder", str(tmp_path), "--json"], capture_output=True, text=True, timeout=280, check=False
    )

    summary = json.loads(done.stdout)
    assert done.returncode == (1 if summary["findings"] else 0), done.stderr
    assert (summary["seed"], summary["requests"]) == (1, 60)
    assert summary["upgraded"] > 0
    assert summary["hits"] > 0
    assert not [kind for kind in summary["findings"] if kind.startswith("off: status 5")]
