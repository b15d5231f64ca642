"""One module per command; `bridge.cli` loads each when it is called.

A command's module exposes `command`, a click command or group.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bridge.errors import UsageError

if TYPE_CHECKING:
    from bridge.settings import Settings


@dataclass(frozen=True, slots=True)
class Invocation:
    """What stands before the command's name on the command line."""

    config_file: Path | None = None
    debug: bool = False


def settings_of(ctx: click.Context, **flags: dict[str, Any]) -> "Settings":
    """The settings of this call; `flags` holds, per section, the command's own options (None: not given).

    Raises:
        SettingsError: see `load_settings`.
    """
    from bridge.settings import load_settings  # pydantic takes 0.2 s, which `--help` has no use for

    invocation = ctx.find_object(Invocation) or Invocation()
    return load_settings(invocation.config_file, **flags)


def confirm(question: str) -> None:
    """Asks on stderr before something that cannot be taken back.

    Raises:
        UsageError: nobody is there to answer.
        click.Abort: the answer is no.
    """
    try:
        yes = click.confirm(question, err=True)
    except click.Abort:
        if sys.stdin.isatty():
            raise
        raise UsageError("this asks first, and nobody can answer here: give --yes") from None
    if not yes:
        raise click.Abort
