"""`neural-bridge node` without a node; tests/integration starts real ones."""

from pathlib import Path

import pytest

from tests.command_line import run


@pytest.mark.parametrize(
    ("arguments", "output", "code"),
    [
        (["status"], "node default is not running\n", 1),
        (["status", "--json"], '{\n  "name": "default",\n  "ready": false,\n  "pid": null\n}\n', 1),
        (["stop"], "node default was not running\n", 0),
        (["clean", "--name", "x"], "there is no node x\n", 0),
    ],
)
def test_commands_say_that_there_is_no_node(tmp_path: Path, arguments: list[str], output: str, code: int) -> None:
    result = run("node", *arguments, env={"BRIDGE_NODE__CACHE_DIR": str(tmp_path)})
    assert (result.output, result.exit_code) == (output, code)
