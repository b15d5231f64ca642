"""Starts the real servers that tests talk to: nodes as child processes, on free ports of loopback."""

import os
import socket
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest
from opensearchpy import OpenSearch

from bridge.errors import NodeError
from bridge.node.launch import plan_node
from bridge.node.node import EmbeddedNode
from bridge.settings import load_settings


def embedded_node(version: str | None = None) -> AbstractContextManager[EmbeddedNode]:
    """A node that ends with the block; skips the test where no Java can run it.

    `BRIDGE_TEST_NODE_VERSION` names the version where the test does not.
    """
    settings = load_settings().node
    wanted = version or os.environ.get("BRIDGE_TEST_NODE_VERSION")
    try:
        plan_node(settings, wanted)
    except NodeError as error:
        pytest.skip(str(error))
    return EmbeddedNode.owned("tests", settings, wanted)


@contextmanager
def client(url: str) -> Iterator[OpenSearch]:
    """A client that does not retry: a test sees the first answer, however busy the machine is."""
    opensearch = OpenSearch(url, max_retries=0, timeout=120)
    try:
        yield opensearch
    finally:
        opensearch.close()


def free_port() -> int:
    """A port of loopback that nothing listens on, for servers that have to come back to theirs."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def unused_index_name() -> str:
    return f"test-{uuid.uuid4().hex[:12]}"
