"""An index whose application numbers versions itself is recognised, and any other one is not taken for it."""

import json
from typing import Any

import pytest
from opensearchpy import OpenSearch

from bridge.cluster import index as indices
from bridge.cluster.connection import connect
from bridge.errors import IndexUnsuitable
from bridge.node.node import EmbeddedNode
from bridge.settings import ClusterSettings, IngestSettings
from ingest.sources.versions import external_versions, is_external, refuse_external_versions

DETECT = IngestSettings()


@pytest.fixture
def client(node: EmbeddedNode) -> OpenSearch:
    return connect(ClusterSettings(url=node.url))


def write(client: OpenSearch, index: str, *targets: dict[str, Any]) -> None:
    lines = [line for target in targets for line in ({"index": target}, {"title": "words"})]
    client.bulk(index=index, body="".join(json.dumps(line) + "\n" for line in lines), params={"refresh": "true"})


def found(client: OpenSearch, index: str, settings: IngestSettings = DETECT) -> str | None:
    return external_versions(client, indices.look(client, index), settings)


@pytest.mark.parametrize(
    ("version", "seq_no", "external"),
    [(1, 0, False), (2, 1, False), (3, 900, False), (2, 0, True), (1_700_000_000_000, 900, True), (0, 5, True)],
)
def test_a_version_above_the_number_of_operations_is_external(version: int, seq_no: int, external: bool) -> None:
    assert is_external(version, seq_no) == external


@pytest.mark.case("I41")
@pytest.mark.parametrize(
    "versions",
    [
        pytest.param([1_700_000_000_000 + i for i in range(50)], id="times"),
        pytest.param(list(range(50)), id="offsets-that-are-sequence-numbers"),
        pytest.param([1] * 49 + [7_000], id="one-document-of-many"),
        pytest.param([3, 2, 1, 2, 3] * 10, id="counters-of-rows-after-a-new-load"),
    ],
)
def test_external_versions_are_recognised(client: OpenSearch, fresh_index: str, versions: list[int]) -> None:
    targets = [{"_id": f"d{i}", "version": v, "version_type": "external"} for i, v in enumerate(versions)]
    write(client, fresh_index, *targets)
    obstacle = found(client, fresh_index)
    assert obstacle is not None
    assert "external versions" in obstacle
    with pytest.raises(IndexUnsuitable, match=r"neural-bridge backfill .* --beside.*--external-versions no"):
        refuse_external_versions(client, indices.look(client, fresh_index), DETECT)
    assert found(client, fresh_index, IngestSettings(external_versions="no")) is None


@pytest.mark.case("I41")
def test_the_cluster_s_own_versions_are_not_taken_for_external_ones(client: OpenSearch, fresh_index: str) -> None:
    client.indices.create(index=fresh_index, body={"settings": {"index.number_of_shards": 3}})
    assert found(client, fresh_index) is None
    write(client, fresh_index, *({"_id": f"d{i}"} for i in range(60)))
    for _ in range(20):
        write(client, fresh_index, *({"_id": f"d{i}"} for i in range(3)))
    client.delete(index=fresh_index, id="d1")
    write(client, fresh_index, {"_id": "d1"})
    assert found(client, fresh_index) is None
    refuse_external_versions(client, indices.look(client, fresh_index), DETECT)
    assert "external versions" in (found(client, fresh_index, IngestSettings(external_versions="yes")) or "")
