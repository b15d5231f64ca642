"""Options of the commands that enrich: what they choose, what they refuse, and how a call is repeated."""

import signal
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from bridge.commands import Invocation
from bridge.commands.options.enrich import (
    EnrichOptions,
    PassageOptions,
    RunOptions,
    check_names,
    end,
    repeated,
)
from bridge.commands.options.signature import argument, cli_command
from bridge.errors import EXIT_DEAD_LETTERS, UsageError
from bridge.profile import IndexProfile, ModelReference, PassageSettings
from ingest.books.ledger import Ledger, Report
from ingest.signals import StopRequest

WHOLE = Report("shop", "index shop", Ledger(), complete=True, seconds=1.0)
ENRICHED = IndexProfile(["title"], ModelReference("toy", "0" * 12), 4)


def parsed(*words: str) -> tuple[EnrichOptions, RunOptions, str]:
    """What a command with these options gets, and its call as a command `other` would repeat it."""
    seen: list[tuple[EnrichOptions, RunOptions, str]] = []

    @cli_command()
    def command(ctx: click.Context, *, index: str = argument(), enrich: EnrichOptions, run: RunOptions) -> None:
        seen.append((enrich, run, repeated(ctx, "other", index, without=["quiet"])))

    done = CliRunner().invoke(command, list(words), obj=Invocation(None), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return seen[0]


def test_options_become_settings_and_what_was_left_out_stays_out() -> None:
    enrich, run, _ = parsed("shop", "--no-expansion", "--generator", "x", "--threads", "2", "--max-errors", "0")
    assert run.limits() == {"max_documents_per_s": None, "max_errors": 0}
    ctx = click.Context(click.Command("backfill"), obj=Invocation(None))
    settings = enrich.settings(ctx, **run.limits()).ingest
    assert (settings.generator, settings.threads, settings.max_errors) == ("", 2, 0)


def test_a_call_is_repeated_as_it_was_typed() -> None:
    words = ["shop", "--text-field", "the title", "--text-field", "body", "--no-expansion", "--quiet"]
    assert parsed(*words)[2] == "neural-bridge other shop --text-field 'the title' --text-field body --no-expansion"


def test_text_fields_are_those_of_the_call_then_those_of_the_index() -> None:
    named, unnamed = parsed("shop", "--text-field", "body")[0], parsed("shop")[0]
    assert (named.names("shop", ENRICHED), unnamed.names("shop", ENRICHED)) == (("body",), ("title",))
    with pytest.raises(UsageError, match="which fields of shop hold text is not known: name them with --text-field"):
        unnamed.names("shop", None)


@pytest.mark.parametrize(
    ("name", "remedy"), [("titel", "did you mean title?"), ("entirely-different", "see its mapping")]
)
def test_a_name_that_nobody_has_is_refused_with_the_nearest_one(name: str, remedy: str) -> None:
    known = ["title", "shop.city"]
    check_names(["title", "shop"], known, owner="index products")
    with pytest.raises(UsageError) as refused:
        check_names([name], known, owner="index products")
    assert f"index products has no field {name}: {remedy}" in str(refused.value)


def test_passages_have_defaults_where_nothing_was_chosen() -> None:
    assert PassageOptions("nested", 100, None).settings() == PassageSettings("nested", max_tokens=100)
    assert PassageOptions().settings() == PassageSettings()


def test_a_run_has_a_folder_per_task_and_index_unless_one_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    folders = {parsed("shop")[1].folder(task, index) for task in ("follow", "backfill") for index in ("a", "b")}
    assert len(folders) == 4
    assert all(folder.is_relative_to(tmp_path) for folder in folders)
    assert parsed("shop", "--state-folder", "books")[1].folder("follow", "a") == Path("books")


def ended(request: StopRequest, *reports: Report, n_runs: int = 1) -> int:
    with pytest.raises(click.exceptions.Exit) as at_the_end:
        end(click.Context(click.Command("backfill")), request, *reports, n_runs=n_runs)
    return at_the_end.value.exit_code


def test_several_runs_end_with_the_first_code_that_says_something() -> None:
    assert ended(StopRequest(), WHOLE, WHOLE, n_runs=2) == 0
    lost = Report("shop", "index shop", Ledger(read=1, dead_lettered=1), complete=True, seconds=1.0)
    assert ended(StopRequest(), WHOLE, lost, WHOLE, n_runs=3) == lost.exit_code == EXIT_DEAD_LETTERS


def test_a_signal_between_two_runs_says_how_to_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    request = StopRequest()
    request.ask(signal.SIGTERM)
    assert ended(request, WHOLE) == 0
    assert ended(request, WHOLE, n_runs=2) == 128 + signal.SIGTERM
    assert "stopped; go on with: neural-bridge" in capsys.readouterr().err
