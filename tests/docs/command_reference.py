"""The page docs/reference/commands.md, made from the command tree; `python -m tests.docs.reference_pages` writes it."""

import inspect
from collections.abc import Iterator

import click

from bridge.cli import GROUPS

HEAD = """# Commands

`neural-bridge [--config FILE] [--debug] COMMAND …`. Data go to stdout, everything else to stderr. Exit codes: 0 done,
1 unexpected, 2 usage or settings, 3 done with dead letters, 4 connection or access, 5 cluster blocked or stalled,
129, 130 and 143 stopped by SIGHUP, SIGINT and SIGTERM.
"""


def reference() -> str:
    """Every command with its arguments, options and defaults, as Markdown, in the order of `--help`."""
    parts = [HEAD]
    for title, group in GROUPS.items():
        parts.append(f"\n## {title}\n")
        for name, lazy in group.items():
            parts += [_section(path, command) for path, command in _commands(lazy.load(), ("neural-bridge", name))]
    return "".join(parts)


def _commands(command: click.Command, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        for name, subcommand in command.commands.items():
            yield from _commands(subcommand, (*path, name))


def _section(path: tuple[str, ...], command: click.Command) -> str:
    arguments = [parameter for parameter in command.params if isinstance(parameter, click.Argument)]
    options = [parameter for parameter in command.params if isinstance(parameter, click.Option)]
    title = " ".join([*path, *(_argument(argument) for argument in arguments)])
    lines = [
        f"\n### {title}\n",
        *(f"\n{_paragraph(part)}\n" for part in inspect.cleandoc(command.help or "").split("\n\n")),
    ]
    if options:
        lines.append("\n| option | meaning |\n|---|---|\n")
        lines += [f"| {_option(option)} | {_meaning(option)} |\n" for option in options]
    return "".join(lines)


def _paragraph(text: str) -> str:
    """A paragraph of a help text; click leaves the lines of one that begins with a backspace as they are."""
    return f"```text\n{text.removeprefix(chr(8)).strip()}\n```" if text.startswith("\b") else text


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
