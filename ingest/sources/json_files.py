"""Files of JSON, cut into entries: an object a line, one huge array, bodies of `_bulk` requests, and search hits.

A byte order mark, CRLF, blank lines and a missing final newline are accepted. Bytes stay what they were: a streaming
parser (ijson) would read numbers and print them anew, so only the borders of an array's elements are looked for.
"""

import re
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import count
from typing import Any, BinaryIO

from bridge.records import SourcePosition
from ingest.sources.documents import Entry, sized
from ingest.sources.file_access import READ_BYTES
from ingest.sources.json_objects import JsonProblem, member, parse_object
from ingest.sources.source import SAMPLE_BYTES, Unreadable

Numbered = Iterable[tuple[int, bytes]]

BOM = b"\xef\xbb\xbf"
JSON_SPACE = b" \t\r\n"

_TARGET_KEYS = {"_index", "_type", "_id", "routing", "_routing", "require_alias"}
"""What an action may say beside its name and still be nothing but a document."""

_OUTSIDE_TEXT = re.compile(rb'["\[\]{},]')
_INSIDE_TEXT = re.compile(rb'"|\\[\s\S]?')
"""The end of a text, or a backslash with what it escapes, which the next chunk may hold."""


def lines(stream: BinaryIO, max_bytes: int) -> Iterator[tuple[int, bytes]]:
    """Lines that are not blank, with their numbers (first is 1), without surrounding white space.

    Lines longer than `max_bytes` are cut somewhere beyond that length.
    """
    for number in count(1):
        if not (line := _next_line(stream, max_bytes)):
            return
        if stripped := (line.removeprefix(BOM) if number == 1 else line).strip(JSON_SPACE):
            yield number, stripped


def lines_between(stream: BinaryIO, places: range, max_bytes: int) -> Iterator[tuple[int, bytes]]:
    """Like `lines`, but those whose first byte is at one of `places`, with the offsets of these bytes."""
    if places.start:
        # A line that began before belongs to the range before, even if only its newline is left.
        stream.seek(places.start - 1)
        _skip_line(stream)
    while (offset := stream.tell()) < places.stop:
        line = _next_line(stream, max_bytes)
        if stripped := (line.removeprefix(BOM) if offset == 0 else line).strip(JSON_SPACE):
            yield offset, stripped


def elements(stream: BinaryIO, max_bytes: int) -> Iterator[tuple[int, bytes]]:
    """The elements of the array in a stream, with their numbers (first is 1), without surrounding white space.

    What is no JSON comes as it is: an element that is cut off, or what follows the array. Elements longer than
    `max_bytes` are cut somewhere beyond that length.
    """
    signs = _Signs()
    depth = number = 0
    pending = b""
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
                element = (pending + chunk[begin:at]).strip(JSON_SPACE)
                pending, begin = b"", at + 1
                if element or number or sign == b",":  # An array without elements has no border either.
                    number += 1
                    yield number, element
            if not depth:
                if after := (chunk[begin:] + stream.read(READ_BYTES)).strip(JSON_SPACE):
                    yield number + 1, after
                return
        if depth:
            pending += chunk[begin:][: max(0, max_bytes + 2 - len(pending))]
    # The comma makes a problem of it even if the file breaks off right behind an element.
    yield number + 1, pending.strip(JSON_SPACE) + b","


def is_action(line: bytes) -> bool:
    """Whether a line can only be the first of a bulk request: an action's name and its target."""
    try:
        ((name, target),) = parse_object(line).items()
    except (JsonProblem, ValueError):
        return False
    return name in ("index", "create") and isinstance(target, dict) and target.keys() <= _TARGET_KEYS


def bulk_entries(name: str, numbered: Numbered, max_bytes: int) -> Iterator[Entry | Unreadable]:
    """The documents of `index` and `create` actions; other actions are problems, since they are no documents."""
    remaining = iter(numbered)
    for number, line in remaining:
        position = SourcePosition(name, number)
        try:
            op, target = _action(line)
        except JsonProblem as problem:
            yield Unreadable(position, problem.kind, str(problem), line[:SAMPLE_BYTES])
            continue
        following = (number, line) if op == "delete" else next(remaining, None)
        if following is None:
            yield Unreadable(position, "invalid_action", "the document of this action is missing", line)
            return
        position, body = SourcePosition(name, following[0]), following[1]
        if op in ("update", "delete"):
            reason = f"{op} actions hold no whole document: send them to the cluster's own _bulk"
            yield Unreadable(position, "not_a_document", reason, body[:SAMPLE_BYTES])
        else:
            routing = target.get("routing", target.get("_routing"))
            yield sized(Entry(position, body, target.get("_id"), routing), max_bytes)


def hit_entries(name: str, numbered: Numbered, max_bytes: int) -> Iterator[Entry | Unreadable]:
    """Hits as a search answers them, and as elasticdump writes them: the document is in `_source`."""
    for number, line in numbered:
        whole = sized(Entry(SourcePosition(name, number), line), max_bytes)
        if isinstance(whole, Unreadable):
            yield whole
            continue
        try:
            hit = parse_object(line)
        except JsonProblem as problem:
            yield Unreadable(whole.position, problem.kind, str(problem), line)
            continue
        source = member(line, "_source")
        if source is None or not isinstance(hit.get("_id"), str):
            yield Unreadable(whole.position, "not_a_hit", "expected a hit with _id and _source", line)
        else:
            yield Entry(whole.position, source, hit["_id"], hit.get("_routing", hit.get("routing")))


def _next_line(stream: BinaryIO, max_bytes: int) -> bytes:
    line = stream.readline(max_bytes + 2)
    if len(line) > max_bytes and not line.endswith(b"\n"):
        _skip_line(stream)
    return line


def _skip_line(stream: BinaryIO) -> None:
    while (rest := stream.readline(READ_BYTES)) and not rest.endswith(b"\n"):
        pass


def _action(line: bytes) -> tuple[str, dict[str, Any]]:
    values = parse_object(line[:SAMPLE_BYTES])
    op, target = next(iter(values.items()), ("", None))
    if len(values) != 1 or op not in ("index", "create", "update", "delete") or not isinstance(target, dict):
        raise JsonProblem("invalid_action", 'expected an action, such as {"index": {"_id": "1"}}')
    if op in ("index", "create") and (unknown := sorted(target.keys() - _TARGET_KEYS)):
        raise JsonProblem("invalid_action", f"the action asks for {', '.join(unknown)}, which ingest does not do")
    return op, target


class _Signs:
    """Finds brackets, braces and commas outside of texts, from one chunk to the next."""

    def __init__(self) -> None:
        self._in_text = False
        self._escaped = False

    def of(self, chunk: bytes) -> Iterator[tuple[int, bytes]]:
        """The offset of each sign in the chunk, in order."""
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
