"""`filter_path`: which parts of an answer are wanted. The cluster's own rules, for answers that the bridge composes.

Names separated by dots, several of them by commas; `*` stands for any characters of a name, `**` for any number of
names, and a leading `-` takes parts out. Arrays are looked through. What is kept stays byte for byte.
"""

import re
from collections.abc import Sequence
from urllib.parse import unquote_plus

import msgspec

PARAMETER = "filter_path"

Path = tuple[str, ...]
"""A pattern: the names that are still to be met on the way down."""


def filtered(body: bytes, wanted: str) -> bytes:
    """The parts of a JSON object that the value of the parameter names.

    Raises:
        msgspec.DecodeError: `body` is no JSON.
    """
    patterns = [pattern.strip() for pattern in wanted.split(",") if pattern.strip()]
    included = [tuple(pattern.split(".")) for pattern in patterns if not pattern.startswith("-")]
    excluded = [tuple(pattern[1:].split(".")) for pattern in patterns if pattern.startswith("-")]
    kept: msgspec.Raw | None = msgspec.Raw(body)
    if included:
        kept = _included(msgspec.Raw(body), included)
    if kept is not None and excluded:
        kept = _without(kept, excluded)
    return b"{}" if kept is None else bytes(kept)


def without_parameter(target: str) -> str:
    """A request target without the parameter; every other byte stays as it is."""
    path, _, query_string = target.partition("?")
    kept = [part for part in query_string.split("&") if unquote_plus(part.partition("=")[0]) != PARAMETER]
    return f"{path}?{'&'.join(kept)}" if kept else path


def _included(value: msgspec.Raw, patterns: Sequence[Path]) -> msgspec.Raw | None:
    """What the patterns name of a value; None where that is nothing."""
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


def _without(value: msgspec.Raw, patterns: Sequence[Path]) -> msgspec.Raw | None:
    """A value without what the patterns name; None where nothing is left of it."""
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


def _below(patterns: Sequence[Path], name: str) -> list[Path]:
    """What is left of the patterns below a member of this name; `()` where one ends here."""
    left: list[Path] = []
    for pattern in patterns:
        if not pattern:
            continue
        first, *rest = pattern
        if first == "**":
            left += [pattern, *(_below([tuple(rest)], name) if rest else [()])]
        elif re.fullmatch(re.escape(first).replace(r"\*", ".*"), name):
            left.append(tuple(rest))
    return left


def _items(value: msgspec.Raw) -> list[msgspec.Raw] | None:
    return msgspec.json.decode(value, type=list[msgspec.Raw]) if _begins_with(value, b"[") else None


def _members(value: msgspec.Raw) -> dict[str, msgspec.Raw] | None:
    return msgspec.json.decode(value, type=dict[str, msgspec.Raw]) if _begins_with(value, b"{") else None


def _begins_with(value: msgspec.Raw, bracket: bytes) -> bool:
    return bytes(memoryview(value)[:64]).lstrip().startswith(bracket)


def _raw(value: object) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(value))
