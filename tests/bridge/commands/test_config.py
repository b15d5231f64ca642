"""`neural-bridge config` and `completion`, the latter by the shell itself if it is installed."""

import os
import shutil
import subprocess
import sys

import pytest
import yaml

from bridge.cli import COMMANDS
from bridge.settings import settings_reference
from tests.command_line import answer, output


def test_settings_in_force_are_shown_and_secrets_masked() -> None:
    environment = {"BRIDGE_CLUSTER__URL": "http://search:9200", "BRIDGE_CLUSTER__PASSWORD": "very-secret"}
    assert answer("config", "show", env=environment)["cluster"]["url"] == "http://search:9200"
    shown = output("config", "show", env=environment)
    assert yaml.safe_load(shown)["cluster"]["url"] == "http://search:9200"
    assert "very-secret" not in shown


def test_the_reference_lists_every_setting() -> None:
    assert output("config", "reference") == settings_reference()


def completed(words: str, place: int) -> set[str]:
    """What the program offers a shell for the word at `place`."""
    variables = {"_NEURAL_BRIDGE_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(place)}
    done = subprocess.run(
        [sys.executable, "-m", "bridge.cli"],
        env={**os.environ, **variables},
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
    script = output("completion", shell)
    assert "_NEURAL_BRIDGE_COMPLETE" in script
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=script, text=True, check=True, timeout=60)
