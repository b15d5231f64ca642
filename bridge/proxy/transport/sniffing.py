"""Clients that ask the cluster for its nodes, so as to speak to them directly, are kept at the proxy.

`GET /_nodes/http` lists the nodes' addresses. A client that sniffs takes them for its own from then on, and
would leave the bridge without anybody noticing.
"""

import re

import msgspec
from aiohttp import hdrs

_NODES = re.compile(r"/_nodes(/[^/?]+)?/http/?(\?.*)?")
_PUBLISHED = re.compile(rb'("publish_address"\s*:\s*)"[^"]*"')
_BOUND = re.compile(rb'("bound_address"\s*:\s*)\[(?:\s*"[^"]*"\s*,?)*\s*\]')


def asks_for_nodes(method: str, target: str) -> bool:
    """Whether a request line is a sniffing client's."""
    return method == hdrs.METH_GET and _NODES.fullmatch(target) is not None


def with_address(body: bytes, address: str) -> bytes:
    """The answer in JSON with `address`, HOST:PORT, as every node's; all other bytes stay."""
    quoted = msgspec.json.encode(address)
    published = _PUBLISHED.sub(lambda found: found[1] + quoted, body)
    return _BOUND.sub(lambda found: found[1] + b"[" + quoted + b"]", published)
