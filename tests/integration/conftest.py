"""What several tests through a proxy share."""

from collections.abc import Iterator

import pytest

from bridge.node.node import EmbeddedNode
from bridge.settings import ClusterSettings
from tests.proxy_stack import ProxyStack, proxy_stack


@pytest.fixture(scope="module")
def stack(node: EmbeddedNode, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProxyStack]:
    """A proxy that has time for every stage, and sees each change of a profile at once."""
    folder = tmp_path_factory.mktemp("models")
    with proxy_stack(ClusterSettings(url=node.url), folder, budget_ms=60_000, profile_ttl_s=0) as running:
        yield running
