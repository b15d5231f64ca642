"""The test cluster loses and regains nodes, so that tests of the bridge may rely on it."""

from collections.abc import Iterator

import pytest

from ingest.runs.ingest import tuned_for_load
from tests.node_cluster import NodeCluster, start_cluster

pytestmark = [pytest.mark.slow, pytest.mark.node]


@pytest.fixture(scope="module")
def cluster() -> Iterator[NodeCluster]:
    with start_cluster() as running:
        yield running


def test_a_cluster_outlives_its_manager_and_takes_it_back(cluster: NodeCluster) -> None:
    with cluster.client() as client:
        client.indices.create(index="kept", body={"settings": {"number_of_shards": 3, "number_of_replicas": 1}})
        cluster.wait_until_green(3)
        for number in range(60):
            client.index(index="kept", id=str(number), body={"number": number})

        lost = cluster.manager()
        lost.kill()
        assert client.cat.cluster_manager(params={"h": "node", "cluster_manager_timeout": "30s"}).strip() != lost.name
        client.index(index="kept", id="60", body={"number": 60})

        lost.start()
        cluster.wait_until_green(3)
        client.indices.refresh(index="kept")
        assert client.count(index="kept")["count"] == 61


def test_an_index_that_was_filled_without_replicas_has_them_again(cluster: NodeCluster) -> None:
    with cluster.client() as client:
        client.indices.create(index="filled", body={"settings": {"number_of_shards": 3, "number_of_replicas": 1}})
        with tuned_for_load(client, "filled", is_empty=True, replicas=0):
            for number in range(60):
                client.index(index="filled", id=str(number), body={"number": number})
            shards = client.cat.shards(index="filled", format="json")
            assert {shard["prirep"] for shard in shards} == {"p"}

        cluster.wait_until_green(3)

        shards = client.cat.shards(index="filled", format="json")
        assert (
            sorted(shard["prirep"] + " " + shard["state"] for shard in shards) == ["p STARTED"] * 3 + ["r STARTED"] * 3
        )
