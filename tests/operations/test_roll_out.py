"""The example of a roll-out: which steps follow which, and what is taken back."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.docker.test_manifests import assert_is_a_command

OPERATIONS = Path(__file__).parent.parent.parent / "scripts" / "operations"
FILL, CUT_OVER, EVALUATE, ROLL_BACK = "generation fill", "generation cutover", "evaluate --index", "generation rollback"


def program(folder: Path, exits: dict[str, int]) -> Path:
    """Stands for `neural-bridge`: notes what it is asked, and exits as it is told to for the first two words."""
    cases = " ".join(f'"{words}") exit {status};;' for words, status in exits.items())
    script = folder / "neural-bridge"
    script.write_text(f'#!/bin/sh\necho "$@" >>"{folder}/asked"\ncase "$1 $2" in {cases} esac\n', encoding="utf-8")
    script.chmod(0o755)
    return script


@pytest.mark.parametrize(
    ("exits", "status", "steps", "complaint"),
    [
        pytest.param({}, 0, [FILL, CUT_OVER, EVALUATE], "", id="good"),
        pytest.param({FILL: 3}, 3, [FILL], "searches go on as they were", id="dead-letters"),
        pytest.param({CUT_OVER: 2}, 2, [FILL, CUT_OVER], "", id="not-fit-to-serve"),
        pytest.param(
            {EVALUATE: 1}, 1, [FILL, CUT_OVER, EVALUATE, ROLL_BACK], "searches use the generation before", id="worse"
        ),
        pytest.param(
            {EVALUATE: 4}, 4, [FILL, CUT_OVER, EVALUATE, ROLL_BACK], "could not be measured", id="not-measured"
        ),
    ],
)
def test_a_step_follows_only_where_the_one_before_succeeded(
    tmp_path: Path, exits: dict[str, int], status: int, steps: list[str], complaint: str
) -> None:
    done = subprocess.run(
        [OPERATIONS / "roll-out", "products", "new-encoder", "judgements.csv"],
        env={**os.environ, "NEURAL_BRIDGE": str(program(tmp_path, exits))},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )

    assert done.returncode == status
    assert (complaint in done.stderr) if complaint else not done.stderr
    asked = (tmp_path / "asked").read_text(encoding="utf-8").splitlines()
    assert [" ".join(line.split()[:2]) for line in asked] == steps
    for line in asked:
        assert_is_a_command(line.split())
