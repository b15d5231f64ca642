"""Files with JSON in lines: one object a line, the bodies of `_bulk` requests, and search hits.

A byte order mark, CRLF, blank lines and a missing final newline are accepted.
"""

from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

from bridge.records import SourcePosition
from ingest.sources.compression import READ_BYTES
from ingest.sources.entries import Entry, too_large
from ingest.sources.json_objects import JsonProblem, member, parse_object
from ingest.sources.opening import SAMPLE_BYTES, Unreadable

NumberedLines = Iterable[tuple[int, bytes]]

BOM = b"\xef\xbb\xbf"
JSON_SPACE = b" \t\r\n"

_TARGET_KEYS = {"_index", "_type", "_id", "routing", "_routing", "require_alias"}
"""What an action may say beside its name and still be nothing but a document."""


def lines(stream: BinaryIO, max_bytes: int) -> Iterator[tuple[int, bytes]]:
    """Lines that are not blank, with their numbers (first is 1), without surrounding white space.

    Of a line longer than `max_bytes` only so much that it can be told is given.
    """
    number = 0
    while line := stream.readline(max_bytes + 2):
        number += 1
        if len(line) > max_bytes and not line.endswith(b"\n"):
            while (rest := stream.readline(READ_BYTES)) and not rest.endswith(b"\n"):
                pass
        if number == 1:
            line = line.removeprefix(BOM)
        if stripped := line.strip(JSON_SPACE):
            yield number, stripped


def is_action(line: bytes) -> bool:
    """Whether a line can only be the first of a bulk request: an action's name and where it goes."""
    try:
        ((name, target),) = parse_object(line).items()
    except (JsonProblem, ValueError):
        return False
    return name in ("index", "create") and isinstance(target, dict) and target.keys() <= _TARGET_KEYS


def bulk_entries(name: str, numbered: NumberedLines, max_bytes: int) -> Iterator[Entry | Unreadable]:
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
        elif len(body) > max_bytes:
            yield too_large(position, body, max_bytes)
        else:
            yield Entry(position, body, target.get("_id"), target.get("routing", target.get("_routing")))


def hit_entries(name: str, numbered: NumberedLines, max_bytes: int) -> Iterator[Entry | Unreadable]:
    """Hits as a search answers them, and as elasticdump writes them: the document stands under `_source`."""
    for number, line in numbered:
        position = SourcePosition(name, number)
        if len(line) > max_bytes:
            yield too_large(position, line, max_bytes)
            continue
        try:
            hit = parse_object(line)
        except JsonProblem as problem:
            yield Unreadable(position, problem.kind, str(problem), line)
            continue
        source = member(line, "_source")
        if source is None or not isinstance(hit.get("_id"), str):
            yield Unreadable(position, "not_a_hit", "expected a hit with _id and _source", line)
        else:
            yield Entry(position, source, hit["_id"], hit.get("_routing", hit.get("routing")))


def _action(line: bytes) -> tuple[str, dict[str, Any]]:
    values = parse_object(line[:SAMPLE_BYTES])
    op, target = next(iter(values.items()), ("", None))
    if len(values) != 1 or op not in ("index", "create", "update", "delete") or not isinstance(target, dict):
        raise JsonProblem("invalid_action", 'expected an action, such as {"index": {"_id": "1"}}')
    if op in ("index", "create") and (unknown := sorted(target.keys() - _TARGET_KEYS)):
        raise JsonProblem("invalid_action", f"the action asks for {', '.join(unknown)}, which ingest does not do")
    return op, target
