"""Ingest goes on while the nodes of its cluster are restarted, one after another."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.feed import Feed, wait_until_written
from tests.node_cluster import NodeCluster, start_cluster
from tests.toys import make_toy_encoder

pytestmark = [pytest.mark.slow, pytest.mark.node, pytest.mark.timeout(1800)]

INDEX = "restarted"


@pytest.fixture
def cluster() -> Iterator[NodeCluster]:
    with start_cluster() as running:
        yield running


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
