"""What the commands share: settings, common options, output. `bridge.cli` loads a command's module when it is called.

A command's module exposes `command`, a click command or group.
"""

import importlib.util
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bridge.commands.options.signature import argument, option
from bridge.errors import UsageError

if TYPE_CHECKING:
    from opensearchpy import OpenSearch
    from rich.table import Table

    from bridge.cluster.index import IndexState
    from bridge.console import Display
    from bridge.settings import Settings

# Records of options must give these the names that they have elsewhere: a dataclass writes the name into them.
INDEX = argument()
CLUSTER = option("--cluster", help="Address of the cluster, including the scheme.")
JSON = option("--json", help="Print one JSON object.")
QUIET = option("--quiet", help="Show no progress.")
YES = option("--yes", help="Do not ask for confirmation.")


@dataclass(frozen=True, slots=True)
class Invocation:
    """The options before the command's name."""

    config_file: Path | None = None
    debug: bool = False


def invocation_of(ctx: click.Context) -> Invocation:
    """The options before the command's name; defaults if a command runs without `neural-bridge`."""
    return ctx.find_object(Invocation) or Invocation()


def settings_of(ctx: click.Context, **flags: dict[str, Any]) -> "Settings":
    """The settings of this call; `flags` holds, per section, the command's own options (None: not set).

    Raises:
        SettingsError: see `load_settings`.
    """
    from bridge.settings import load_settings  # pydantic takes 0.2 s, which `--help` has no use for

    return load_settings(invocation_of(ctx).config_file, **flags)


def connected(ctx: click.Context, cluster_url: str | None) -> "tuple[OpenSearch, Settings]":
    """A client of the cluster, and the settings of this call."""
    settings = settings_of(ctx, cluster={"url": cluster_url})
    from bridge.cluster.connection import connect

    return connect(settings.cluster), settings


def look_at(ctx: click.Context, index: str, cluster_url: str | None) -> "tuple[OpenSearch, IndexState]":
    """A client of the cluster, and the present state of `index`."""
    client, _ = connected(ctx, cluster_url)
    from bridge.cluster.index import look

    return client, look(client, index)


def enriched(ctx: click.Context, index: str, cluster_url: str | None) -> "tuple[OpenSearch, IndexState]":
    """A client of the cluster, and the index that holds the profile of `index`: itself, or its companion.

    Raises:
        IndexUnsuitable: see `bridge.cluster.companion.enriched`.
    """
    client, settings = connected(ctx, cluster_url)
    from bridge.cluster import companion

    return client, companion.enriched(client, index, settings.companion.prefix)


def progress_display(*, quiet: bool = False) -> "Display":
    """Progress on stderr."""
    from rich.console import Console

    from bridge.console import Display, wide_console

    return Display(Console(stderr=True, quiet=True) if quiet else wide_console(stderr=True))


def say(*lines: str, err: bool = False) -> None:
    """Prints text for people; control characters of documents, ids and errors are made visible."""
    from bridge.console import safe_text

    for line in lines:
        click.echo(safe_text(line, lines=True), err=err)


def show(value: dict[str, Any], *parts: "str | Table", as_json: bool, indent: int | None = 2) -> None:
    """Prints a result: `value` as one JSON object, on one line if `indent` is None, or lines and tables for people."""
    if as_json:
        click.echo(json.dumps(value, indent=indent))
        return
    from bridge.console import wide_console

    for part in parts:
        if isinstance(part, str):
            say(part)
        else:
            wide_console().print(part)


@contextmanager
def needs_extra(purpose: str, extras: str) -> Iterator[None]:
    """Imports of packages that only some installations have.

    Raises:
        UsageError: one of them is missing; names it and the extras that bring it.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise UsageError(
            f"{purpose} needs the package {error.name}: pip install 'opensearch-neural-bridge[{extras}]'"
        ) from error


def require_packages(purpose: str, packages: Sequence[str], extras: str) -> None:
    """Looks for packages without importing them, before a long run.

    Raises:
        UsageError: some are missing; names them and the extras that bring them.
    """
    if missing := [name for name in packages if importlib.util.find_spec(name) is None]:
        raise UsageError(f"{purpose} needs {', '.join(missing)}: pip install 'opensearch-neural-bridge[{extras}]'")


def confirm(question: str) -> None:
    """Asks on stderr before something that cannot be undone.

    Raises:
        UsageError: there is no terminal to answer from.
        click.Abort: the answer is no.
    """
    try:
        yes = click.confirm(question, err=True)
    except click.Abort:
        if sys.stdin.isatty():
            raise
        raise UsageError("this command asks for confirmation, and there is no terminal: give --yes") from None
    if not yes:
        raise click.Abort
