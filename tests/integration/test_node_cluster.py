"""A cluster loses and regains nodes, so that tests of the bridge may rely on it; ingest goes on meanwhile."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ingest.runs.ingest import tuned_for_load
from tests.feed import Feed, wait_until_written
from tests.node_cluster import NodeCluster, start_cluster
from tests.toys import make_toy_encoder

pytestmark = [pytest.mark.slow, pytest.mark.node, pytest.mark.timeout(1800)]

INDEX = "restarted"


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


@pytest.mark.case("I33")
def test_a_rolling_restart_loses_and_refuses_nothing(cluster: NodeCluster, tmp_path: Path) -> None:
    encoder = tmp_path / "encoder"
    encoder.mkdir()
    make_toy_encoder(encoder)
    models = ["--encoder", str(encoder)]
    bridge = [sys.executable, "-m", "bridge.cli"]
    create = ["index", "create", INDEX, "--cluster", cluster.urls[0], "--text-field", "text", "--shards", "3"]
    subprocess.run([*bridge, *create, "--replicas", "1", *models, "--generator", ""], check=True, timeout=300)
    cluster.wait_until_green(3)
    ingest = ["ingest", INDEX, "-", "--cluster", cluster.urls[0], "--no-expansion", "--threads", "1", "--json"]
    environment = {**os.environ, "BRIDGE_INGEST__BULK_DOCUMENTS": "50", "BRIDGE_INGEST__MAX_STALL_S": "900"}
    read_end, write_end = os.pipe()
    with subprocess.Popen(
        [*bridge, *ingest, *models, "--state-folder", str(tmp_path / "state")],
        stdin=read_end,
        stdout=subprocess.PIPE,
        env=environment,
    ) as process:
        os.close(read_end)
        feed = Feed(write_end)
        try:
            with cluster.client() as client:
                wait_until_written(client, INDEX)
            for node in cluster.nodes:
                fed = len(feed.doc_ids)
                node.stop()
                node.start()
                cluster.wait_until_green(3)
                assert len(feed.doc_ids) > fed, "nothing was read while the node was away"
        finally:
            feed.end()
        out, _ = process.communicate(timeout=900)
    assert process.returncode == 0
    ledger = json.loads(out)["ledger"]
    assert ledger["read"] == ledger["written"] == len(feed.doc_ids)
    with cluster.client() as client:
        client.indices.refresh(index=INDEX)
        client.indices.put_settings(index=INDEX, body={"index.max_result_window": 1_000_000})
        found = client.search(index=INDEX, body={"size": len(feed.doc_ids) + 1, "_source": False})["hits"]["hits"]
        assert sorted(hit["_id"] for hit in found) == sorted(feed.doc_ids)
