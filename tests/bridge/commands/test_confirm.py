"""Commands that ask before they do what cannot be taken back."""

import click
import pytest
from click.testing import CliRunner

from bridge.commands import confirm
from bridge.errors import UsageError


@click.command()
def asking() -> None:
    confirm("Remove it?")
    click.echo("removed")


def test_yes_goes_on_and_no_stops() -> None:
    assert CliRunner().invoke(asking, input="y\n").stdout == "removed\n"
    with pytest.raises(click.Abort):
        CliRunner().invoke(asking, input="n\n", standalone_mode=False, catch_exceptions=False)


def test_where_nobody_can_answer_the_option_is_named() -> None:
    with pytest.raises(UsageError, match="--yes"):
        CliRunner().invoke(asking, input="", standalone_mode=False, catch_exceptions=False)
