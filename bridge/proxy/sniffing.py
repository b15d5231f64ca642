"""Clients that ask the cluster for its nodes, so as to speak to them directly, are kept at the proxy.

`GET /_nodes/http` lists the nodes' addresses. A client that sniffs takes them for its own from then on, and
would leave the bridge without anybody noticing.
"""

import re

from aiohttp import hdrs

from bridge.search import json_tree

_NODES = re.compile(r"/_nodes(/[^/?]+)?/http/?(\?.*)?")


def asks_for_nodes(method: str, target: str) -> bool:
    """Whether a request line is a sniffing client's."""
    return method == hdrs.METH_GET and _NODES.fullmatch(target) is not None


def with_address(body: bytes, address: str) -> bytes:
    """The answer with `address`, HOST:PORT, as every node's; one that is no such answer stays as it is."""
    try:
        told = json_tree.read(body)
    except ValueError:
        return body
    nodes = told.get("nodes") if isinstance(told, dict) else None
    for node in nodes.values() if isinstance(nodes, dict) else ():
        if isinstance(node, dict) and isinstance(http := node.get("http"), dict):
            http |= {"publish_address": address, "bound_address": [address]}
    return json_tree.write(told)
