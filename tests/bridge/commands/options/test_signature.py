"""Options as defaults of parameters: what a command gets of them, and how help lists them."""

from dataclasses import dataclass

import click
import pytest
from click.testing import CliRunner

from bridge.commands.options.signature import argument, cli_command, one_of, option


@dataclass(frozen=True, slots=True)
class Size:
    """Options in a record."""

    width: int = option("--width", default=2, help="Columns.")
    height: int | None = option("--height", type=int, help="Rows.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A record in a record."""

    names: tuple[str, ...] = option("--name", multiple=True)
    size: Size


@click.group()
def group() -> None:
    """Commands."""


@cli_command(of=group)
def draw(
    ctx: click.Context,
    *,
    file: str = argument(),
    picture: Picture,
    way: str | None = one_of(option("--up", flag_value="up"), option("--down", flag_value="down")),
    prefix: str = option("--prefix", default=""),
    loud: bool = option("--loud"),
) -> None:
    """Draw it."""
    click.echo(f"{ctx.info_name} {file} {picture} {way} {prefix!r}{'!' * loud}")


def drawn(*words: str) -> str:
    return CliRunner().invoke(group, ["draw", *words], catch_exceptions=False).output


def test_records_get_the_options_of_their_fields() -> None:
    size = Size(width=3, height=None)
    assert drawn("x.png", "--width", "3", "--name", "a", "--name", "b") == (
        f"draw x.png {Picture(names=('a', 'b'), size=size)} None ''\n"
    )


@pytest.mark.parametrize(("words", "way"), [([], "None"), (["--down"], "down"), (["--down", "--up"], "up")])
def test_of_several_options_that_set_one_parameter_the_last_one_counts(words: list[str], way: str) -> None:
    assert f" {way} " in drawn("x.png", *words)


def test_a_bool_is_a_flag() -> None:
    assert drawn("x.png", "--loud") == drawn("x.png").replace("\n", "!\n")


def test_help_lists_options_in_the_order_of_the_signature_with_their_defaults() -> None:
    shown = drawn("--help")
    places = [shown.index(name) for name in ("FILE", "Draw it.", "--name", "--width", "--height", "--up", "--prefix")]
    assert places == sorted(places)
    assert shown.count("[default:") == 1
    assert "Columns.  [default: 2]" in shown


def test_a_record_that_is_made_without_a_command_has_the_same_defaults() -> None:
    assert Picture(size=Size()) == Picture(names=(), size=Size(width=2, height=None))
