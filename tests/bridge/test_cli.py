"""The command tree: quick help, one line per error, exit codes."""

import inspect
import subprocess
import sys
from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner

from bridge import __version__, errors
from bridge.cli import COMMANDS, GROUPS, cli, main


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bridge.cli", *arguments], capture_output=True, text=True, check=False, timeout=60
    )


WITHOUT_JSON = {
    "completion": "prints a script for the shell",
    "config reference": "prints a chapter of the documentation",
    "connector": "prints requests with JSON bodies, and nothing else",
    "demo": "shows something to a person",
    "models show": "prints JSON and nothing else",
    "serve": "does not end by itself; its log is JSON",
    "serve proxy": "the same",
    "serve rerank": "the same",
}


def every_command(command: click.Command, *path: str) -> Iterator[tuple[str, click.Command]]:
    """Commands and groups, by their words."""
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found is not None
            yield " ".join((*path, name)), found
            yield from every_command(found, *path, name)


def test_every_command_that_ends_speaks_json_where_asked() -> None:
    silent = {
        words
        for words, command in every_command(cli)
        if (not isinstance(command, click.Group) or command.invoke_without_command)
        and not any("--json" in parameter.opts for parameter in command.params)
    }
    assert silent == set(WITHOUT_JSON)


@pytest.mark.parametrize(
    "words", ["", *(words for words, _ in every_command(cli))], ids=lambda words: words or "itself"
)
def test_help_fits_a_terminal_of_80_columns(words: str) -> None:
    shown = CliRunner().invoke(cli, [*words.split(), "--help"], terminal_width=80)
    assert shown.exit_code == 0
    assert [line for line in shown.output.splitlines() if len(line) > 80] == []


@pytest.mark.parametrize(("words", "command"), list(every_command(cli)))
def test_help_is_whole_sentences(words: str, command: click.Command) -> None:
    """Every paragraph and option says something, and ends."""
    texts = [text for text in inspect.cleandoc(command.help or "").split("\n\n") if not text.startswith("\b")]
    texts += [option.help or "" for option in command.params if isinstance(option, click.Option)]
    assert [text for text in texts if not text.endswith((".", ":"))] == []
    assert [line for text in texts for line in text.splitlines() if line.startswith(("- ", "* ", " "))] == []


def test_help_groups_the_commands_by_a_persons_day() -> None:
    shown = run("--help")
    titles = [line.removesuffix(":") for line in shown.stdout.splitlines() if line.endswith(":") and line[0] != " "]
    assert titles == ["Options", *GROUPS]
    assert len(COMMANDS) == sum(len(group) for group in GROUPS.values())


def test_help_names_every_command() -> None:
    shown = run("--help")
    assert shown.returncode == 0
    for name, lazy in COMMANDS.items():
        assert f"  {name} " in shown.stdout
        assert lazy.summary[:40] in shown.stdout


def test_help_loads_no_heavy_library() -> None:
    program = (
        "import sys\nfrom bridge.cli import cli\ncli.main(['--help'], standalone_mode=False)\n"
        "heavy = {'numpy', 'onnxruntime', 'opensearchpy', 'aiohttp', 'pydantic', 'torch', 'rich'} & set(sys.modules)\n"
        "sys.exit(f'loaded: {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_each_command_loads_and_shows_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([name, "--help"])
    assert stopped.value.code == 0
    assert "Usage: neural-bridge" in capsys.readouterr().out


def test_version_is_the_package_version() -> None:
    assert __version__ in run("--version").stdout


def test_unknown_command_is_a_usage_error_that_names_the_commands() -> None:
    done = run("serch")
    assert done.returncode == 2
    assert "'serch'" in done.stderr
    assert "search" in done.stderr


def test_an_error_is_one_line_without_traceback() -> None:
    done = run("--config", "/nonexistent/bridge.yaml", "config", "show")
    assert done.returncode == 2
    assert done.stderr.startswith("Error: settings file /nonexistent/bridge.yaml does not exist")
    assert "Traceback" not in done.stderr


def test_an_error_that_nobody_foresaw_is_one_line_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(**_: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(cli, "main", fail)
    with pytest.raises(SystemExit) as ended:
        main(["config", "show"])
    assert ended.value.code == 1
    assert capsys.readouterr().err.startswith("Error: unexpected error: RuntimeError: a bug; rerun with `neural-bridge")
    with pytest.raises(RuntimeError, match="a bug"):
        main(["--debug", "config", "show"])


def test_debug_shows_the_traceback() -> None:
    done = run("--debug", "--config", "/nonexistent/bridge.yaml", "config", "show")
    assert done.returncode != 0
    assert "Traceback" in done.stderr


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.SettingsError("x"), 2),
        (errors.IndexUnsuitable("x"), 2),
        (errors.CheckpointUnusable("x"), 2),
        (errors.AccessDenied("x"), 4),
        (errors.ClusterUnreachable("x"), 4),
        (errors.ClusterBlocked("x"), 5),
        (errors.LedgerUnbalanced("x"), 1),
        (errors.ModelError("x"), 1),
    ],
)
def test_errors_map_to_exit_codes(error: errors.BridgeError, code: int) -> None:
    assert errors.exit_code(error) == code
