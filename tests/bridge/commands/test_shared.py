"""What the commands share: questions before something that cannot be undone, output, and packages that are missing."""

import click
import pytest
from click.testing import CliRunner

from bridge.commands import confirm, needs_extra, require_packages, show
from bridge.errors import UsageError


@click.command()
def asking() -> None:
    confirm("Remove it?")
    click.echo("removed")


def test_yes_goes_on_and_no_stops() -> None:
    assert CliRunner().invoke(asking, input="y\n").stdout == "removed\n"
    with pytest.raises(click.Abort):
        CliRunner().invoke(asking, input="n\n", standalone_mode=False, catch_exceptions=False)


def test_without_a_terminal_the_option_is_named() -> None:
    with pytest.raises(UsageError, match="--yes"):
        CliRunner().invoke(asking, input="", standalone_mode=False, catch_exceptions=False)


def test_missing_packages_are_named_with_the_extra_that_brings_them() -> None:
    remedy = r"pip install 'opensearch-neural-bridge\[train\]'"
    with pytest.raises(UsageError, match=f"training needs no_such_one, nor_this: {remedy}"):
        require_packages("training", ("json", "no_such_one", "nor_this"), "train")
    with (
        pytest.raises(UsageError, match=f"a picture needs the package no_such_one: {remedy}"),
        needs_extra("a picture", "train"),
    ):
        import no_such_one  # type: ignore[import-not-found]  # noqa: F401


@pytest.mark.case("S13")
def test_results_for_people_show_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    show({"id": "a\x1b"}, "a\x1b", "two\nlines", as_json=False)
    assert capsys.readouterr().out == "a\\x1b\ntwo\nlines\n"
    show({"id": "a\x1b"}, as_json=True)
    assert "\x1b" not in capsys.readouterr().out
