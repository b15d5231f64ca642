r"""Halves of surrogate pairs in JSON: clusters take and return them, Unicode and every decoder refuse them.

They come from strings that were cut by UTF-16 units, as JavaScript and Java do: `"Rain cape \ud83d"`.
"""

import re
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


def replace_lone_surrogates(body: bytes) -> bytes:
    """JSON with U+FFFD in place of each half of a surrogate pair; every other byte stays, and so does the length."""
    return _ESCAPE.sub(_replaced, body) if _SUSPECT.search(body) else body


def _replaced(escape: re.Match[bytes]) -> bytes:
    if escape["half"]:
        return b"\\ufffd"
    return b"\xef\xbf\xbd" if escape["raw"] else escape[0]
