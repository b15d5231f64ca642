"""JSON objects as bytes: checked, cut and spliced without being written anew.

Numbers keep every digit and unknown fields stay as they were, because values are never parsed and printed
again.
"""

import json
from collections.abc import Collection, Mapping
from typing import Any, NoReturn

import msgspec

RawObject = dict[str, msgspec.Raw]

_raw_decoder = msgspec.json.Decoder(RawObject)
_optional_decoder = msgspec.json.Decoder(RawObject | None)


class JsonProblem(Exception):
    """Why bytes are no JSON object that OpenSearch would take. `kind` is a word for machines."""

    def __init__(self, kind: str, reason: str) -> None:
        """`reason` is for people."""
        super().__init__(reason)
        self.kind = kind


def parse_object(body: bytes) -> dict[str, Any]:
    """Parses one JSON object, more strictly than either parser alone; numbers stay text, as written.

    Raises:
        JsonProblem: no UTF-8, no JSON, no object, a key twice, `NaN`, half a surrogate pair, or nested too
            deeply to be read.
    """
    try:
        values: dict[str, Any] = _strict_decoder.decode(body.decode())
        # The other parser finds what this one lets pass, and has the better words for the rest: half a surrogate
        # pair, which only an escape can hold, and what is no object.
        if b"\\u" in body or not isinstance(values, dict):
            _raw_decoder.decode(body)
    except RecursionError as error:
        raise JsonProblem("nested_too_deeply", "the object is nested too deeply") from error
    except UnicodeDecodeError as error:
        raise JsonProblem("invalid_utf8", f"the object is not UTF-8: {error.reason} at byte {error.start}") from error
    except msgspec.ValidationError as error:
        raise JsonProblem("not_an_object", f"this is no JSON object: {error}") from error
    except (msgspec.DecodeError, ValueError) as error:
        raise JsonProblem("invalid_json", f"this is no JSON: {error}") from error
    return values


def member(body: bytes, key: str) -> bytes | None:
    """The value of one of the object's keys, as JSON; None where it has no such key, or is null."""
    value = (_optional_decoder.decode(body) or {}).get(key)
    return None if value is None or bytes(value) == b"null" else bytes(value)


def within(body: bytes, name: str) -> bytes | None:
    """The value of the field with this full name (dots for objects), as JSON; None where there is none, or what
    should be an object is something else."""
    value: bytes | None = body
    try:
        for key in name.split("."):
            value = member(value, key) if value is not None else None
    except msgspec.ValidationError:
        return None
    return value


def without_key(body: bytes, key: str) -> bytes:
    """The object without one of its keys; the values of the others byte for byte."""
    if f'"{key}"'.encode() not in body:
        return body
    values = _raw_decoder.decode(body)
    if key not in values:
        return body
    del values[key]
    return _joined(values)


def reshaped(body: bytes, *, rename: Mapping[str, str], drop: Collection[str]) -> bytes:
    """The object with some of its keys renamed and others gone; the values byte for byte.

    Raises:
        JsonProblem: two keys would have one name.
    """
    values = _raw_decoder.decode(body)
    if values.keys().isdisjoint((*rename, *drop)):
        return body
    kept: RawObject = {}
    for key, value in values.items():
        if key not in drop:
            name = rename.get(key, key)
            if name in kept:
                raise JsonProblem("duplicate_key", f"key {name!r} would stand twice after renaming")
            kept[name] = value
    return _joined(kept)


def with_key(body: bytes, key: str, value: bytes) -> bytes:
    """The object with `key` set to `value` (JSON), in place of any value it has; on one line."""
    kept = without_key(body, key).strip()
    # A bulk body has one object per line. In valid JSON a newline can only stand between tokens.
    kept = kept.replace(b"\r", b" ").replace(b"\n", b" ")
    inner = kept[1:-1].strip()
    comma = b"," if inner else b""
    return b"{" + inner + comma + msgspec.json.encode(key) + b":" + value + b"}"


def _joined(values: Mapping[str, msgspec.Raw]) -> bytes:
    pairs = (msgspec.json.encode(key) + b":" + bytes(value) for key, value in values.items())
    return b"{" + b",".join(pairs) + b"}"


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in values if keys.count(key) > 1)
        raise JsonProblem("duplicate_key", f"key {twice!r} stands twice in one object")
    return values


def _refused(constant: str) -> NoReturn:
    raise JsonProblem("invalid_json", f"{constant} is no JSON number")


_strict_decoder = json.JSONDecoder(object_pairs_hook=_unique, parse_int=str, parse_float=str, parse_constant=_refused)
