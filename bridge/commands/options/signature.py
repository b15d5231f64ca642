"""A command's options as defaults of its parameters: `quiet: bool = option("--quiet", help="…")`.

A parameter whose type is a dataclass gets the options that are its fields' defaults as one value, and one whose type is
`click.Context` the command's context.
"""

import functools
import inspect
from collections.abc import Callable, Iterator
from dataclasses import Field, field, fields, is_dataclass
from pathlib import Path
from typing import Any

import click

EXISTING_FILE = click.Path(path_type=Path, exists=True, dir_okay=False)
EXISTING_FOLDER = click.Path(path_type=Path, exists=True, file_okay=False)
FILE = click.Path(path_type=Path, dir_okay=False)
FOLDER = click.Path(path_type=Path, file_okay=False)

_DECORATORS = "decorators"


def option(*words: str, **attributes: Any) -> Any:
    """An option, typed as `words`, of a `bool` a flag; `attributes` as of `click.option`. Help shows its default."""
    default = attributes.get("default", () if attributes.get("multiple") else None)
    attributes = {"show_default": attributes.get("default") not in (None, ""), **attributes}

    def declared(name: str, shape: object) -> Any:
        return click.option(*words, name, is_flag=shape is bool or None, **attributes)

    return field(default=default, metadata={_DECORATORS: [declared]})


def one_of(*options: Any) -> Any:
    """Several options that set one parameter: the last one that is typed counts."""
    return field(default=None, metadata={_DECORATORS: [each for of in options for each in of.metadata[_DECORATORS]]})


def argument(**attributes: Any) -> Any:
    """An argument; `attributes` are those of `click.argument`."""
    return field(metadata={_DECORATORS: [lambda name, _: click.argument(name, **attributes)]})


def cli_command(
    name: str | None = None, *, of: click.Group | None = None
) -> Callable[[Callable[..., None]], click.Command]:
    """Makes a function a command, of the group `of` if there is one; `name` is by default the function's."""

    def made(function: Callable[..., None]) -> click.Command:
        parameters = inspect.signature(function).parameters.values()

        @functools.wraps(function)
        def decorated(**values: Any) -> None:
            function(**{each.name: _value(each.name, each.annotation, values) for each in parameters})

        declared = [one for each in parameters for one in _decorators(each.name, each.annotation, each.default)]
        for decorator in reversed(declared):
            decorated = decorator(decorated)
        return (of.command if of else click.command)(name)(decorated)

    return made


def _decorators(name: str, shape: Any, default: Any) -> Iterator[Callable[..., Any]]:
    if is_dataclass(shape):
        for each in fields(shape):
            yield from _decorators(each.name, each.type, each)
    elif isinstance(default, Field):
        yield from (decorator(name, shape) for decorator in default.metadata[_DECORATORS])


def _value(name: str, shape: Any, values: dict[str, Any]) -> Any:
    if shape is click.Context:
        return click.get_current_context()
    if isinstance(shape, type) and is_dataclass(shape):
        return shape(**{each.name: _value(each.name, each.type, values) for each in fields(shape)})
    return values[name]
