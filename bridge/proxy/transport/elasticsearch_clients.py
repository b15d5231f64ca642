"""What clients of one product must see of the other, and what keeps sniffing clients at the proxy.

Since 7.14 Elasticsearch's clients refuse every product that does not name itself in a header, and since 8 they write
media types of their own, which OpenSearch answers with 406. `proxy.es_compat` translates both. Beyond that they get
OpenSearch's answers: what only Elasticsearch can do stays an error of the cluster.

`GET /_nodes/http` lists the nodes' addresses. A client that sniffs connects to them from then on, and would bypass
the bridge unnoticed.
"""

import re

import msgspec
from aiohttp import hdrs
from multidict import CIMultiDict

from bridge.proxy.transport.headers import ELASTICSEARCH_MEDIA_TYPE, plain_media_type
from bridge.search import json_tree

PRODUCT = {"X-Elastic-Product": "Elasticsearch"}

CLAIMED_VERSION = "8.19.0"
"""What `GET /` answers: clients of 7.14 and later want 7 or more, and from 8 on send no mapping types,
which OpenSearch no longer takes."""

_NODES = re.compile(r"/_nodes(/[^/?]+)?/http/?(\?.*)?")
_PUBLISHED = re.compile(rb'("publish_address"\s*:\s*)"[^"]*"')
_BOUND = re.compile(rb'("bound_address"\s*:\s*)\[(?:\s*"[^"]*"\s*,?)*\s*\]')


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
    try:
        introduction = json_tree.read(body)
    except ValueError:
        return body
    if not isinstance(introduction, dict) or not isinstance(version := introduction.get("version"), dict):
        return body
    version.pop("distribution", None)
    version |= {"number": CLAIMED_VERSION, "build_flavor": "default"}
    return json_tree.write({**introduction, "tagline": "You Know, for Search"})


def asks_for_nodes(method: str, target: str) -> bool:
    """Whether a request line is a sniffing client's."""
    return method == hdrs.METH_GET and _NODES.fullmatch(target) is not None


def with_address(body: bytes, address: str) -> bytes:
    """The answer in JSON with `address`, HOST:PORT, as every node's; all other bytes stay."""
    quoted = msgspec.json.encode(address)
    published = _PUBLISHED.sub(lambda found: found[1] + quoted, body)
    return _BOUND.sub(lambda found: found[1] + b"[" + quoted + b"]", published)
