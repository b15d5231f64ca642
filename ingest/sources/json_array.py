"""One huge JSON array as a source of documents: its elements, cut out as they stand.

A streaming parser (ijson) would read numbers and print them anew; here only the borders of elements are
looked for, so that every byte stays what it was.
"""

import re
from collections.abc import Iterator
from functools import partial
from typing import BinaryIO

from ingest.sources.compression import READ_BYTES
from ingest.sources.json_lines import JSON_SPACE

_OUTSIDE_TEXT = re.compile(rb'["\[\]{},]')
_INSIDE_TEXT = re.compile(rb'"|\\[\s\S]?')
"""The end of a text, or a backslash with what it escapes, which the next chunk may hold."""


def elements(stream: BinaryIO, max_bytes: int) -> Iterator[tuple[int, bytes]]:
    """The elements of the array in a stream, with their numbers (first is 1), without surrounding white space.

    What is no JSON is given as it stands: an element that is cut off, or what follows the array. Of an element
    longer than `max_bytes` only so much that it can be told is given.
    """
    signs = _Signs()
    depth = number = 0
    held = b""
    for chunk in iter(partial(stream.read, READ_BYTES), b""):
        begin = 0
        for at, sign in signs.of(chunk):
            if sign in b"[{":
                depth += 1
                if depth == 1:
                    begin = at + 1
                continue
            depth -= sign in b"]}"
            if depth == (1 if sign == b"," else 0):
                element = (held + chunk[begin:at]).strip(JSON_SPACE)
                held, begin = b"", at + 1
                if element or number or sign == b",":  # An array without elements has no border either.
                    number += 1
                    yield number, element
            if not depth:
                if after := (chunk[begin:] + stream.read(READ_BYTES)).strip(JSON_SPACE):
                    yield number + 1, after
                return
        if depth:
            held += chunk[begin:][: max(0, max_bytes + 2 - len(held))]
    # The comma makes a problem of it even where the file breaks off right behind an element.
    yield number + 1, held.strip(JSON_SPACE) + b","


class _Signs:
    """Finds brackets, braces and commas outside of texts, from one chunk to the next."""

    def __init__(self) -> None:
        self._in_text = False
        self._escaped = False

    def of(self, chunk: bytes) -> Iterator[tuple[int, bytes]]:
        """Where in the chunk each sign stands, in their order."""
        at = int(self._escaped)
        self._escaped = False
        while found := (_INSIDE_TEXT if self._in_text else _OUTSIDE_TEXT).search(chunk, at):
            at = found.end()
            if found[0] == b'"':
                self._in_text = not self._in_text
            elif self._in_text:
                self._escaped = len(found[0]) == 1
            else:
                yield found.start(), found[0]
