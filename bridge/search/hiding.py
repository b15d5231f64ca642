"""The bridge's object taken out of an answer; every other byte stays as it is.

Applications get their documents as they wrote them, also where the answer is the cluster's own.
"""

from collections.abc import Iterator
from urllib.parse import parse_qsl

import msgspec

from bridge.search import json_tree
from bridge.search.json_tree import Json

RawObject = dict[str, msgspec.Raw]
"""A JSON object whose values are still text."""

_BY_NAME = ("fields", "highlight")
"""Members of a hit whose own members are called by full field names."""

_SHOWING = (
    "_source",
    "_source_includes",
    "aggregations",
    "aggs",
    "collapse",
    "docvalue_fields",
    "fields",
    "highlight",
    "script_fields",
    "stored_fields",
)
"""Members of a body, and URL parameters, that name fields in order to show them."""


def hidden_object(body: bytes, query_string: str, object_field: str) -> str | None:
    """The bridge's object, where it can be left out of the answer to this search without being missed.

    Not where a field of it is named, nor where the search begins pages that the bridge will not see.
    """
    try:
        parameters = dict(parse_qsl(query_string, keep_blank_values=True))
        tree = json_tree.read(body) if body.strip() else {}
    except ValueError:
        return None
    if not isinstance(tree, dict) or "scroll" in parameters or "pit" in tree:
        return None
    shown = [given[key] for given in (tree, parameters) for key in _SHOWING if key in given]
    return None if names_any(shown, object_field) else object_field


def names_any(presentation: Json, object_field: str) -> bool:
    """Whether a field of the bridge's object is named anywhere in what says how hits are shown."""
    if isinstance(presentation, str):
        return any(
            name.strip() == object_field or name.strip().startswith(f"{object_field}.")
            for name in presentation.split(",")
        )
    if isinstance(presentation, dict):
        # What is excluded is named in order not to be seen.
        return any(
            names_any(key, object_field) or names_any(value, object_field)
            for key, value in presentation.items()
            if key not in ("excludes", "exclude", "_source_excludes")
        )
    return isinstance(presentation, list) and any(names_any(each, object_field) for each in presentation)


def hidden(body: bytes, object_field: str) -> bytes:
    """An answer without the bridge's object: in the hits, in those of aggregations, and in inner hits.

    What is no JSON, as a balancer before the cluster may answer, stays as it is.
    """
    name = f'"{object_field}'.encode()
    if name not in body:
        return body
    try:
        changes = list(_changes(msgspec.Raw(body), object_field, name))
    except (msgspec.DecodeError, RecursionError):
        return body
    parts: list[bytes] = []
    at = 0
    for shown, kept in changes:
        # Not found only in an answer with a key twice in one object, which no cluster writes.
        if (found := body.find(shown, at)) >= 0:
            parts += (body[at:found], kept)
            at = found + len(shown)
    return b"".join((*parts, body[at:]))


def hit_without(hit: RawObject, object_field: str) -> RawObject:
    """A hit without the bridge's object in its document."""
    source = bytes(hit.get("_source", b""))
    if source[:1] != b"{" or f'"{object_field}"'.encode() not in source:
        return hit
    return hit | {"_source": msgspec.Raw(without_member(source, object_field))}


def _changes(value: msgspec.Raw, object_field: str, name: bytes) -> Iterator[tuple[bytes, bytes]]:
    """What to replace by what, in the order of the answer."""
    text = bytes(value)
    if name not in text:
        return
    if text[:1] == b"[":
        for item in msgspec.json.decode(text, type=list[msgspec.Raw]):
            yield from _changes(item, object_field, name)
    elif text[:1] == b"{":
        members = msgspec.json.decode(text, type=RawObject)
        for key, member in members.items():
            if key == "_source":
                section = bytes(member)
                if section[:1] == b"{" and (kept := without_member(section, object_field)) != section:
                    yield section, kept
            elif key in _BY_NAME and "_index" in members:
                section = bytes(member)
                if (kept := _without_names(section, object_field)) != section:
                    yield section, kept
            else:
                yield from _changes(member, object_field, name)


def without_member(source: bytes, name: str) -> bytes:
    """A JSON object without one member; every other byte stays as it is.

    The member is cut out with its comma. Where that would not give the very same other members (odd
    spacing, a look-alike inside a string), the object is put together anew from its members.
    """
    members = msgspec.json.decode(source, type=RawObject)
    if name not in members:
        return source
    alone = msgspec.json.encode({name: members.pop(name)})[1:-1]
    for member in (b"," + alone, alone + b",", alone):
        # The bridge writes its object last: look from the end.
        at = source.rfind(member)
        if at < 0:
            continue
        cut = source[:at] + source[at + len(member) :]
        try:
            if msgspec.json.decode(cut, type=RawObject) == members:
                return cut
        except msgspec.DecodeError:
            continue
    return msgspec.json.encode(members)


def _without_names(section: bytes, object_field: str) -> bytes:
    members = msgspec.json.decode(section, type=RawObject)
    kept = {
        name: value
        for name, value in members.items()
        if name != object_field and not name.startswith(f"{object_field}.")
    }
    return msgspec.json.encode(kept) if len(kept) < len(members) else section
