"""The page docs/reference/commands.md, made from the command tree: `python -m tests.command_reference` prints it."""

import inspect
import sys
from collections.abc import Iterator

import click

from bridge.cli import cli

HEAD = """# Commands

`neural-bridge [--config FILE] [--debug] COMMAND …`. Data go to stdout, everything else to stderr. Exit codes: 0 done,
1 unexpected, 2 usage or settings, 3 done with dead letters, 4 connection or access, 5 cluster blocked or stalled,
130 and 143 stopped by SIGINT and SIGTERM.
"""


def reference() -> str:
    """Every command with its arguments, options and defaults, as Markdown."""
    return HEAD + "".join(_section(path, command) for path, command in _commands(cli, ("neural-bridge",)))


def _commands(group: click.Group, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    context = click.Context(group)
    for name in sorted(group.list_commands(context)):
        command = group.get_command(context, name)
        assert command is not None
        yield (*path, name), command
        if isinstance(command, click.Group):
            yield from _commands(command, (*path, name))


def _section(path: tuple[str, ...], command: click.Command) -> str:
    arguments = [parameter for parameter in command.params if isinstance(parameter, click.Argument)]
    options = [parameter for parameter in command.params if isinstance(parameter, click.Option)]
    title = " ".join([*path, *(_argument(argument) for argument in arguments)])
    text = inspect.cleandoc(command.help or "").replace("\b\n", "")
    lines = [f"\n## {title}\n\n{text}\n"]
    if options:
        lines.append("\n| option | meaning |\n|---|---|\n")
        lines += [f"| {_option(option)} | {_meaning(option)} |\n" for option in options]
    return "".join(lines)


def _argument(argument: click.Argument) -> str:
    name = (argument.metavar or argument.name or "").upper()
    return name if argument.required else f"[{name}]"


def _option(option: click.Option) -> str:
    names = ", ".join([*option.opts, *option.secondary_opts])
    return f"`{names}`" if option.is_flag else f"`{names} {option.type.name.removesuffix(' range').upper()}`"


def _meaning(option: click.Option) -> str:
    shown = option.default if option.show_default and option.default is not None else None
    parts = [
        option.help or "",
        f"Default: {shown}." if shown is not None else "",
        "Required." if option.required else "",
    ]
    return " ".join(part for part in parts if part)


if __name__ == "__main__":
    sys.stdout.write(reference())
