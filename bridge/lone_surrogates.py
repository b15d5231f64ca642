r"""Halves of surrogate pairs in JSON: clusters take and return them, Unicode and every decoder refuse them.

They come from strings that were cut by UTF-16 units, as JavaScript and Java do: `"Rain cape \ud83d"`.
"""

import re
from collections.abc import Callable
from typing import TypeVar

import msgspec

T = TypeVar("T")

_SUSPECT = re.compile(rb"\\u[dD][89a-fA-F]|\xed[\xa0-\xbf]")

_ESCAPE = re.compile(
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"  # a whole pair
    rb"|(?P<half>\\u[dD][89a-fA-F][0-9a-fA-F]{2})"
    rb"|\\[\s\S]"  # any other escape: also of a backslash, behind which a `u` is only a letter
    rb"|(?P<raw>\xed[\xa0-\xbf][\x80-\xbf])"  # a half that was encoded like a character
)

_MARKS = [chr(code).encode() for code in range(0x7FF, 0xA0, -1)]
"""Characters of two bytes in UTF-8, the rarest first."""


def decode(body: bytes, kind: type[T]) -> T:
    """Decodes JSON as `msgspec.json.decode` does; halves of surrogate pairs become replacement characters.

    Raises:
        msgspec.DecodeError: this is no JSON, or not a `kind`.
    """
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError):
        readable = replace_lone_surrogates(body)
        if readable == body:
            raise
        return msgspec.json.decode(readable, type=kind)


def decodable(body: bytes) -> tuple[bytes, Callable[[bytes], bytes]]:
    """JSON that decoders take, of the same length, and what gives any stretch of it its own bytes back.

    A character that `body` does not hold stands for the backslash and the `u` of each escaped half.
    """
    unused = next((mark for mark in _MARKS if mark not in body), None)
    if unused is None:
        return replace_lone_surrogates(body), bytes
    return (
        _ESCAPE.sub(lambda escape: unused + escape["half"][2:] if escape["half"] else escape[0], body),
        lambda stretch: stretch.replace(unused, b"\\u"),
    )


def changed(body: bytes, change: Callable[[bytes], bytes]) -> bytes:
    """`change(body)`, for a change that decodes JSON and adds nothing to it; halves of surrogate pairs stay.

    Raises:
        msgspec.DecodeError: as `change` does for a body that is no JSON.
    """
    try:
        return change(body)
    except msgspec.DecodeError:
        readable, restored = decodable(body)
        if readable == body:
            raise
        return restored(change(readable))


def replace_lone_surrogates(body: bytes) -> bytes:
    """JSON with U+FFFD in place of each half of a surrogate pair; every other byte stays, and so does the length."""
    return _ESCAPE.sub(_replaced, body) if _SUSPECT.search(body) else body


def _replaced(escape: re.Match[bytes]) -> bytes:
    if escape["half"]:
        return b"\\ufffd"
    return b"\xef\xbf\xbd" if escape["raw"] else escape[0]
