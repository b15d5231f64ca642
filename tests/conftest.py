"""Fixtures that every test may ask for; `servers` holds what they start."""

from collections.abc import Iterator

import pytest
from opensearchpy import OpenSearch

from bridge.cluster.node import EmbeddedNode
from tests import servers
from tests.secured_node import SecuredNode, start_secured_node


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--elasticsearch",
        action="store_true",
        help="also test against Elasticsearch nodes: 0.9 GB to fetch for each version, once",
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks every test that asks for a node, so that `-m "not node"` leaves all of them out."""
    for item in items:
        if {"node", "secured_node"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.node)


@pytest.fixture(scope="session")
def node() -> Iterator[EmbeddedNode]:
    """One embedded node for the whole run; it ends with it."""
    with servers.embedded_node() as running:
        yield running


@pytest.fixture(scope="session")
def secured_node() -> Iterator[SecuredNode]:
    """One node with the security plugin, for the tests that ask who may see what."""
    with start_secured_node() as running:
        yield running


@pytest.fixture
def opensearch(node: EmbeddedNode) -> Iterator[OpenSearch]:
    """A client of that node."""
    with servers.client(node.url) as client:
        yield client


@pytest.fixture
def fresh_index(opensearch: OpenSearch) -> Iterator[str]:
    """The name of an index that does not exist yet, and is removed afterwards."""
    name = servers.unused_index_name()
    yield name
    opensearch.indices.delete(index=name, params={"ignore_unavailable": "true"})
