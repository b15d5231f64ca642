"""The example for cron: what it runs, what it says, and how it ends."""

import fcntl
import os
import subprocess
from pathlib import Path

import pytest

from tests.docker.test_manifests import assert_is_a_command

OPERATIONS = Path(__file__).parent.parent.parent / "scripts" / "operations"


def program(folder: Path, backfill: int, evaluate: int) -> Path:
    """Stands for `neural-bridge`: notes what it is asked, and exits as it is told to."""
    script = folder / "neural-bridge"
    script.write_text(
        f'#!/bin/sh\necho "$@" >>"{folder}/asked"\ncase $1 in backfill) exit {backfill};; *) exit {evaluate};; esac\n',
        encoding="utf-8",
    )
    script.chmod(0o755)
    return script


@pytest.mark.parametrize(
    ("backfill", "evaluate", "status", "complaint"),
    [
        (0, 0, 0, ""),
        (3, 0, 3, "could not be enriched"),
        (4, 0, 4, "failed with exit code 4"),
        (0, 1, 1, "worse than BM25"),
        (0, 4, 4, "could not be measured"),
    ],
)
def test_a_night_ends_as_its_commands_do_and_complains_only_then(
    tmp_path: Path, backfill: int, evaluate: int, status: int, complaint: str
) -> None:
    done = subprocess.run(
        [OPERATIONS / "nightly", "products", "judgements.csv"],
        env={**os.environ, "NEURAL_BRIDGE": str(program(tmp_path, backfill, evaluate)), "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )

    assert done.returncode == status
    assert (complaint in done.stderr) if complaint else not done.stderr
    for asked in (tmp_path / "asked").read_text(encoding="utf-8").splitlines():
        assert_is_a_command(asked.split())


def test_a_night_that_still_runs_is_not_joined_by_another(tmp_path: Path) -> None:
    with (tmp_path / "neural-bridge-nightly-products.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = subprocess.run(
            [OPERATIONS / "nightly", "products"],
            env={**os.environ, "NEURAL_BRIDGE": str(program(tmp_path, 0, 0)), "TMPDIR": str(tmp_path)},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    assert done.returncode == 0
    assert "still busy" in done.stderr
    assert not (tmp_path / "asked").exists()
