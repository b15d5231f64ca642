"""`filter_path`: which parts of an answer are wanted. The cluster's own rules, for answers that the bridge composes.

Names separated by dots, several of them by commas; `*` stands for any characters of a name, `**` for any number of
names, and a leading `-` takes parts out. Arrays are looked through. What is kept stays byte for byte.
"""

from collections.abc import Sequence
from functools import lru_cache
from urllib.parse import unquote_plus

import msgspec

from bridge.search.wildcards import matches
from bridge.text import changed

PARAMETER = "filter_path"

Path = tuple[str, ...]
"""A pattern: the names that are still to be met on the way down."""


def filtered(body: bytes, wanted: str) -> bytes:
    """The parts of a JSON object that the value of the parameter names.

    Raises:
        msgspec.DecodeError: `body` is no JSON.
    """
    return changed(body, lambda readable: _filtered(readable, patterns_of(wanted)))


def _filtered(body: bytes, patterns: Sequence[str]) -> bytes:
    included = tuple(_path(pattern) for pattern in patterns if not pattern.startswith("-"))
    excluded = tuple(_path(pattern[1:]) for pattern in patterns if pattern.startswith("-"))
    kept: msgspec.Raw | None = msgspec.Raw(body)
    if included:
        kept = _included(msgspec.Raw(body), included)
    if kept is not None and excluded:
        kept = _without(kept, excluded)
    return b"{}" if kept is None else bytes(kept)


def patterns_of(wanted: str) -> list[str]:
    """The patterns in the parameter's value, each once, in their order."""
    return list(dict.fromkeys(pattern.strip() for pattern in wanted.split(",") if pattern.strip()))


def without_parameter(target: str) -> str:
    """A request target without the parameter; every other byte stays as it is."""
    path, _, query_string = target.partition("?")
    kept = [part for part in query_string.split("&") if unquote_plus(part.partition("=")[0]) != PARAMETER]
    return f"{path}?{'&'.join(kept)}" if kept else path


def _included(value: msgspec.Raw, patterns: tuple[Path, ...]) -> msgspec.Raw | None:
    """What the patterns name of a value; None if that is nothing."""
    if (items := _items(value)) is not None:
        found = [part for item in items if (part := _included(item, patterns)) is not None]
        return _raw(found) if found else None
    if (members := _members(value)) is None:
        return None
    kept = {}
    for name, member in members.items():
        further = _below(patterns, name)
        part = member if () in further else _included(member, further) if further else None
        if part is not None:
            kept[name] = part
    return _raw(kept) if kept else None


def _without(value: msgspec.Raw, patterns: tuple[Path, ...]) -> msgspec.Raw | None:
    """A value without what the patterns name; None if nothing is left of it."""
    if (items := _items(value)) is not None:
        left = [part for item in items if (part := _without(item, patterns)) is not None]
        return _raw(left) if left else None
    if (members := _members(value)) is None:
        return value
    kept = {}
    for name, member in members.items():
        further = _below(patterns, name)
        part = None if () in further else _without(member, further) if further else member
        if part is not None:
            kept[name] = part
    return _raw(kept) if kept else None


def _path(pattern: str) -> Path:
    """The names of a pattern; `**` right after `**` adds nothing."""
    names = pattern.split(".")
    return tuple(name for name, before in zip(names, ["", *names], strict=False) if not name == before == "**")


@lru_cache(maxsize=256)
def _below(patterns: tuple[Path, ...], name: str) -> tuple[Path, ...]:
    """What is left of the patterns below a member of this name, each once; `()` if one ends here."""
    # Names return with every hit: what was compared once is remembered.
    left: dict[Path, None] = {}
    for pattern in patterns:
        rest = pattern
        if rest and rest[0] == "**":
            left[pattern] = None
            rest = rest[1:]
            if not rest:
                left[()] = None
        if rest and matches(rest[0], name):
            left[rest[1:]] = None
    return tuple(left)


def _items(value: msgspec.Raw) -> list[msgspec.Raw] | None:
    return msgspec.json.decode(value, type=list[msgspec.Raw]) if _begins_with(value, b"[") else None


def _members(value: msgspec.Raw) -> dict[str, msgspec.Raw] | None:
    return msgspec.json.decode(value, type=dict[str, msgspec.Raw]) if _begins_with(value, b"{") else None


def _begins_with(value: msgspec.Raw, bracket: bytes) -> bool:
    return bytes(memoryview(value)[:64]).lstrip().startswith(bracket)


def _raw(value: object) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(value))
