"""What clients of one product must see of the other, and what keeps sniffing clients at the proxy.

Since 7.14 Elasticsearch's clients refuse every product that does not name itself in a header, and since 8 they write
media types of their own, which OpenSearch answers with 406. `proxy.es_compat` translates both, and what the products
write differently: points in time, and the fields of `_field_caps`. Clients of version 7 want the type of each document
and get the only one that was left. Beyond that they get OpenSearch's answers: what only Elasticsearch can do stays an
error of the cluster.

`GET /_nodes/http` lists the nodes' addresses. A client that sniffs connects to them from then on, and would bypass
the bridge unnoticed.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias
from urllib.parse import quote

import msgspec
from aiohttp import hdrs
from multidict import CIMultiDict, MultiMapping

from bridge.proxy.transport.headers import ELASTICSEARCH_MEDIA_TYPE, plain_media_type
from bridge.search import json_tree
from bridge.search.json_tree import Json
from bridge.text import changed

PRODUCT = {"X-Elastic-Product": "Elasticsearch"}

CLAIMED_VERSION = "8.19.0"
"""What `GET /` answers: clients of 7.14 and later want 7 or more, and from 8 on send no mapping types,
which OpenSearch no longer takes."""

_NODES = re.compile(r"/_nodes(/[^/?]+)?/http/?(\?.*)?")
_PUBLISHED = re.compile(rb'("publish_address"\s*:\s*)"[^"]*"')
_BOUND = re.compile(rb'("bound_address"\s*:\s*)\[(?:\s*"[^"]*"\s*,?)*\s*\]')

_VERSION_7 = re.compile(r"(?:^|,)es=7\b")
_COMPATIBLE_WITH_7 = re.compile(r"application/vnd\.elasticsearch\+[\w-]+\s*;\s*compatible-with\s*=\s*7\b")
_CLIENT_7 = re.compile(r"elasticsearch-[a-z]+/7\.")
_TYPE = msgspec.Raw(b'"_doc"')
_UNTYPED = ("_source", "fields", "highlight")
"""Members of a document in which nothing is the cluster's."""

_DOCUMENTS = re.compile(r"/(?:_doc|_create|_update|_bulk|_mget|_explain|_termvectors|_search/scroll)(?:/|$)")

_POINT_IN_TIME = "_search/point_in_time"
_OPEN = re.compile(r"(/[^/?]+/)_pit/?(\?.*)?")
_CLOSE = re.compile(r"/_pit/?(\?.*)?")
_FIELD_CAPS = re.compile(r"((?:/[^/?]+)?/_field_caps)/?(?:\?(.*))?")

Rewrite: TypeAlias = Callable[[bytes], bytes]


@dataclass(frozen=True, slots=True)
class Translation:
    """A request as OpenSearch takes it: its target and its body; and the answer as Elasticsearch gives it."""

    target: str
    body: bytes
    answer: Rewrite = bytes


def translated(method: str, target: str, body: bytes) -> Translation | None:
    """What to send in place of a request that the two products write differently; None if they write it alike, or if
    it is not understood: then the cluster says so."""
    if method == hdrs.METH_POST and (match := _OPEN.fullmatch(target)):
        query = (match[2] or "").replace("allow_partial_search_results=", "allow_partial_pit_creation=")
        return Translation(f"{match[1]}{_POINT_IN_TIME}{query}", body, _opened)
    members = _read(body)
    if method == hdrs.METH_DELETE and (match := _CLOSE.fullmatch(target)) and "id" in members:
        return Translation(f"/{_POINT_IN_TIME}{match[1] or ''}", json_tree.write({"pit_id": [members["id"]]}), _closed)
    if method in (hdrs.METH_GET, hdrs.METH_POST) and (match := _FIELD_CAPS.fullmatch(target)) and "fields" in members:
        fields = members.pop("fields")
        names = quote(",".join(map(str, fields)) if isinstance(fields, list) else str(fields), safe="*,")
        query = "&".join(filter(None, (match[2], f"fields={names}")))
        return Translation(f"{match[1]}?{query}", json_tree.write(members) if members else b"")
    return None


def may_be_translated(target: str) -> bool:
    """Whether a request of this target has to be read to know."""
    return any(pattern.fullmatch(target) for pattern in (_OPEN, _CLOSE, _FIELD_CAPS))


def _opened(body: bytes) -> bytes:
    """The answer to the opening of a point in time; its id stays."""
    answer = _read(body)
    if "pit_id" not in answer:
        return body
    return json_tree.write({"id": answer["pit_id"], "_shards": answer.get("_shards")})


def _closed(body: bytes) -> bytes:
    pits = _read(body).get("pits")
    if not isinstance(pits, list):
        return body
    n_freed = sum(isinstance(pit, dict) and pit.get("successful") is True for pit in pits)
    return json_tree.write({"succeeded": n_freed == len(pits), "num_freed": n_freed})


def _read(body: bytes) -> dict[str, Json]:
    try:
        tree = json_tree.read(body)
    except ValueError:
        return {}
    return tree if isinstance(tree, dict) else {}


def wants_types(headers: MultiMapping[str]) -> bool:
    """Whether a client asks as version 7 of Elasticsearch."""
    if _VERSION_7.search(headers.get("X-Elastic-Client-Meta", "")) or _CLIENT_7.match(headers.get("User-Agent", "")):
        return True
    return _COMPATIBLE_WITH_7.search(headers.get(hdrs.ACCEPT, "")) is not None


def answers_with_documents(target: str) -> bool:
    """Whether answers tell of documents."""
    return _DOCUMENTS.search(target.partition("?")[0]) is not None


def with_types(body: bytes) -> bytes:
    """An answer in which each document has the type that all documents have in version 7."""
    try:
        return changed(body, lambda readable: bytes(_typed(msgspec.Raw(readable.strip()))))
    except msgspec.DecodeError:
        return body


def _typed(value: msgspec.Raw) -> msgspec.Raw:
    text = bytes(value)
    if b'"_index"' not in text:
        return value
    if text[:1] == b"[":
        return _raw([_typed(item) for item in msgspec.json.decode(text, type=list[msgspec.Raw])])
    if text[:1] != b"{":
        return value
    members = {
        name: member if name in _UNTYPED else _typed(member)
        for name, member in msgspec.json.decode(text, type=dict[str, msgspec.Raw]).items()
    }
    if "_index" in members and "_id" in members and "_type" not in members:
        members = {"_index": members.pop("_index"), "_type": _TYPE, **members}
    return _raw(members)


def _raw(value: object) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(value))


def with_plain_media_types(headers: CIMultiDict[str]) -> CIMultiDict[str]:
    """The request's headers with OpenSearch's names for the media types, in the same order."""
    described = {hdrs.ACCEPT.lower(), hdrs.CONTENT_TYPE.lower()}
    return CIMultiDict(
        (name, plain_media_type(value) if name.lower() in described else value) for name, value in headers.items()
    )


def answer_headers(accept: str, content_type: str) -> dict[str, str]:
    """The headers to put into an answer of `content_type` for a client that accepts `accept`."""
    accepted = ELASTICSEARCH_MEDIA_TYPE.search(accept)
    media_type = content_type.partition(";")[0].strip()
    if accepted is None or media_type != f"application/{accepted[1]}":
        return PRODUCT
    return {**PRODUCT, hdrs.CONTENT_TYPE: accepted[0]}


def introduced(body: bytes) -> bytes:
    """The answer to `GET /` as Elasticsearch gives it; one that is no such answer stays as it is."""
    introduction = _read(body)
    if not isinstance(version := introduction.get("version"), dict):
        return body
    version.pop("distribution", None)
    version |= {"number": CLAIMED_VERSION, "build_flavor": "default"}
    return json_tree.write({**introduction, "tagline": "You Know, for Search"})


def asks_for_nodes(target: str) -> bool:
    """Whether a `GET` of this target is a sniffing client's."""
    return _NODES.fullmatch(target) is not None


def with_address(body: bytes, address: str) -> bytes:
    """The answer in JSON with `address`, HOST:PORT, as every node's; all other bytes stay."""
    quoted = msgspec.json.encode(address)
    published = _PUBLISHED.sub(lambda found: found[1] + quoted, body)
    return _BOUND.sub(lambda found: found[1] + b"[" + quoted + b"]", published)
