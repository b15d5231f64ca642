"""JSON bodies as trees that can be taken apart and put together again without a number changing.

Objects are dicts in the order given, arrays lists. A number that Python cannot carry exactly (a decimal,
or an integer above 64 bits) stays the text that it was, as `msgspec.Raw`.
"""

import json
from typing import Any, TypeAlias

import msgspec

from bridge.text import NestedTooDeeply, deep_values

Json: TypeAlias = Any
"""dict[str, Json], list[Json], str, int, bool, None, or `msgspec.Raw` for a number kept as text."""

_MAX_INTEGER_DIGITS = 18
_READ_BY_NODES = 1000
_MAX_LEVELS = 100
"""What is built of a tree has some levels more, and each may take several calls of Python's thousand."""


def read(body: bytes) -> Json:
    """Parses strict JSON in UTF-8.

    Raises:
        NestedTooDeeply: it has more than a hundred levels.
        ValueError: no such JSON: comments, a key twice in one object, NaN, a lone surrogate, nesting
            beyond what nodes read, or not UTF-8.
    """
    if _is_deeper(body, _READ_BY_NODES):
        raise ValueError("deeper than any node reads")
    if _is_deeper(body, _MAX_LEVELS):
        raise NestedTooDeeply("nested too deeply")
    text = body.decode("utf-8")
    tree = json.loads(
        text,
        object_pairs_hook=_object,
        parse_float=_verbatim,
        parse_int=_integer,
        parse_constant=_no_constant,
    )
    if "\\ud" in text or "\\uD" in text:
        write(tree)
    return tree


def _is_deeper(body: bytes, levels: int) -> bool:
    return next(deep_values(body, levels), None) is not None


def write(tree: Json) -> bytes:
    """The tree as compact JSON on one line."""
    return msgspec.json.encode(tree)


def _object(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    tree = dict(pairs)
    if len(tree) != len(pairs):
        raise ValueError("a key stands twice in one object")
    return tree


def _verbatim(number: str) -> msgspec.Raw:
    return msgspec.Raw(number.encode())


def _integer(number: str) -> int | msgspec.Raw:
    return int(number) if len(number) <= _MAX_INTEGER_DIGITS else _verbatim(number)


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
