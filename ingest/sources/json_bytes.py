"""JSON as bytes, never parsed and printed anew: objects checked, cut and spliced, and files cut into such entries.

So numbers keep every digit and unknown fields stay as they were. A file holds an object a line, one huge array, bodies
of `_bulk` requests, or search hits; a byte order mark, CRLF, blank lines and a missing final newline are accepted. Only
the borders of an array's elements are looked for: a streaming parser (ijson) would read numbers and print them anew.
"""

import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any, BinaryIO, NoReturn

import msgspec

from bridge.records import SourcePosition
from ingest.sources.file_access import READ_BYTES
from ingest.sources.source import SAMPLE_BYTES, Unreadable

RawObject = dict[str, msgspec.Raw]
Numbered = Iterable[tuple[int, bytes]]

BOM = b"\xef\xbb\xbf"
JSON_SPACE = b" \t\r\n"

_TARGET_KEYS = {"_index", "_type", "_id", "routing", "_routing", "require_alias"}
"""What an action may say beside its name and still be nothing but a document."""

_OUTSIDE_TEXT = re.compile(rb'["\[\]{},]')
_INSIDE_TEXT = re.compile(rb'"|\\[\s\S]?')
"""The end of a text, or a backslash with what it escapes, which the next chunk may hold."""

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
    """The value of one of the object's keys, as JSON; None if it has no such key, or is null."""
    value = (_optional_decoder.decode(body) or {}).get(key)
    return None if value is None or bytes(value) == b"null" else bytes(value)


def within(body: bytes, name: str) -> bytes | None:
    """The value of the field with this full name (dots for objects), as JSON; None if there is none, or what
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


@dataclass(frozen=True, slots=True)
class Entry:
    """One JSON object of a file, as bytes; `doc_id` and `routing` if the format writes them beside the object."""

    position: SourcePosition
    body: bytes
    doc_id: str | None = None
    routing: str | None = None


def entries(name: str, numbered: Iterable[tuple[int, bytes]], max_bytes: int) -> Iterator[Entry | Unreadable]:
    """The entries of numbered stretches of a file that hold one object each."""
    for number, body in numbered:
        yield sized(Entry(SourcePosition(name, number), body), max_bytes)


def sized(entry: Entry, max_bytes: int) -> Entry | Unreadable:
    """The entry, or a problem if it is longer than `max_bytes`."""
    if len(entry.body) <= max_bytes:
        return entry
    reason = f"the document is longer than ingest.max_doc_bytes ({max_bytes:,})"
    return Unreadable(entry.position, "document_too_large", reason, entry.body[:SAMPLE_BYTES])


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
