"""`neural-bridge completion`, by the shell itself where there is one."""

import os
import shutil
import subprocess
import sys

import pytest
from click.testing import CliRunner

from bridge.cli import COMMANDS, cli


def completed(words: str, place: int) -> set[str]:
    """What the program offers a shell for the word at `place`."""
    given = {"_NEURAL_BRIDGE_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(place)}
    done = subprocess.run(
        [sys.executable, "-m", "bridge.cli"],
        env={**os.environ, **given},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    return {line.partition(",")[2] for line in done.stdout.splitlines()}


def test_commands_and_options_are_offered() -> None:
    assert completed("neural-bridge ", 1) == set(COMMANDS)
    assert completed("neural-bridge ind", 1) == {"index"}
    assert {"--analyzer", "--text-field"} <= completed("neural-bridge ingest --", 2)


@pytest.mark.parametrize("shell", ["bash", "fish", "zsh"])
def test_a_script_is_one_that_the_shell_can_read(shell: str) -> None:
    done = CliRunner().invoke(cli, ["completion", shell])
    assert done.exit_code == 0
    assert "_NEURAL_BRIDGE_COMPLETE" in done.output
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=done.output, text=True, check=True, timeout=60)
