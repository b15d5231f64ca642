"""`neural-bridge`, run in this process."""

import json
from typing import Any

from click.testing import CliRunner, Result

from bridge.cli import cli


def run(*words: str, **options: Any) -> Result:
    """Runs a command; our own errors are raised instead of printed. `options`: of click's runner, such as `env`."""
    return CliRunner().invoke(cli, list(words), catch_exceptions=False, **options)


def output(*words: str, **options: Any) -> str:
    """The stdout of a command that succeeds."""
    result = run(*words, **options)
    assert result.exit_code == 0, result.output
    return result.stdout


def answer(*words: str, **options: Any) -> dict[str, Any]:
    """The object that a command prints with `--json`."""
    parsed: dict[str, Any] = json.loads(output(*words, "--json", **options))
    return parsed
