"""What commands run against: the proxy before a scripted cluster, or an enriched index on a fake one."""

from collections.abc import Iterator

import pytest

from bridge.cluster.dialects import OpenSearchDialect
from bridge.cluster.schema import new_index
from bridge.profile import IndexProfile, ModelReference
from tests.bridge.commands.products import call, companion, products, products_beside
from tests.bridge.proxy.conftest import make_stack
from tests.fake_bulk import FakeCluster, fake_cluster

__all__ = ["call", "companion", "make_stack", "products", "products_beside"]

PROFILE = IndexProfile(
    text_fields=["title"],
    encoder=ModelReference("toy", "0" * 12),
    generator=ModelReference("toy", "1" * 12),
    dimension=4,
)


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeCluster]:
    """An index of two documents, enriched by `PROFILE`, whose cluster the settings name."""
    with fake_cluster() as running:
        running.mapping = new_index(PROFILE, OpenSearchDialect((3, 6, 0)))["mappings"]
        running.settings = {"index": {"knn": "true", "uuid": "u1"}}
        for doc_id in ("d1", "d2"):
            running.put(doc_id, b'{"title":"red shoe"}')
        monkeypatch.setenv("BRIDGE_CLUSTER__URL", running.url)
        yield running
