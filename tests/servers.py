"""Starts the real servers that tests talk to: nodes as child processes, on free ports of loopback."""

import os
import socket
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
from opensearchpy import OpenSearch

from bridge.errors import NodeError
from bridge.node.assembly import cache_folder, fetch, locked, make_folder
from bridge.node.blueprint import Artifact
from bridge.node.launch import NodePlan, plan_node
from bridge.node.node import EmbeddedNode
from bridge.settings import load_settings


def embedded_node(version: str | None = None) -> AbstractContextManager[EmbeddedNode]:
    """A node that ends with the block; skips the test where no Java can run it.

    `BRIDGE_TEST_NODE_VERSION` names the version where the test does not.
    """
    return EmbeddedNode.owned_as_planned("tests", node_plan(version))


def node_plan(version: str | None = None) -> NodePlan:
    """The plan of `embedded_node`, which skips where it would."""
    try:
        return plan_node(load_settings().node, version or os.environ.get("BRIDGE_TEST_NODE_VERSION"))
    except NodeError as error:
        pytest.skip(str(error))


@contextmanager
def client(url: str) -> Iterator[OpenSearch]:
    """A client that does not retry: a test sees the first answer, however busy the machine is."""
    opensearch = OpenSearch(url, max_retries=0, timeout=120)
    try:
        yield opensearch
    finally:
        opensearch.close()


def unpacked_home(name: str, archive: Artifact, unpack: Callable[[Path, Path], Path]) -> Path:
    """The distribution of a server, shared by all runs on this machine; `unpack` puts an archive's content into a
    folder, and says where in it the distribution is."""
    settings = load_settings().node
    cache = cache_folder(settings.cache_dir)
    home = cache / "homes" / name
    make_folder(home.parent)
    with locked(cache / "assembly.lock"):
        if home.is_dir():
            return home
        downloads = cache / "downloads"
        local = [folder for folder in (settings.mirror_dir, Path.home() / ".m2" / "repository") if folder]
        fetch([archive], downloads, local)
        downloaded = downloads / archive.repository_path
        with tempfile.TemporaryDirectory(dir=home.parent, prefix=".unpacking-") as unfinished:
            unpack(downloaded, Path(unfinished)).rename(home)
        downloaded.unlink()  # Elasticsearch's are 0.9 GB that nobody reads again.
    return home


def free_port() -> int:
    """A port of loopback that nothing listens on, for servers that have to come back to theirs."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def unused_index_name() -> str:
    return f"test-{uuid.uuid4().hex[:12]}"
