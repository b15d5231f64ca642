"""The embedded node as its users meet it: real ones, started, found, killed and cleaned away."""

import shutil
import signal
import subprocess
import sys
import time
import uuid
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from opensearchpy import OpenSearch

from bridge.cluster.diagnosis import examine
from bridge.errors import NodeError
from bridge.node import node as nodes
from bridge.node.launch import plan_node
from bridge.node.node import EmbeddedNode
from bridge.node.process import NodeProcess
from bridge.settings import ClusterSettings, NodeSettings, Settings, load_settings
from tests import servers

PATIENCE_S = 30.0

DOCUMENTS: dict[str, tuple[str, list[float]]] = {"fox": ("running foxes", [1, 0]), "bear": ("a bear", [0, 1])}

MAPPINGS = {
    "properties": {
        "title": {"type": "text", "analyzer": "english"},
        "embedding": {
            "type": "knn_vector",
            "dimension": 2,
            "method": {"name": "hnsw", "engine": "lucene", "space_type": "cosinesimil"},
        },
    }
}

OWNER = """
import time
from bridge.node.node import EmbeddedNode
from bridge.settings import load_settings
with EmbeddedNode.owned("killed", load_settings().node) as node:
    print(node.pid, node.version, node.folder, flush=True)
    time.sleep(600)
"""


@pytest.fixture
def settings() -> NodeSettings:
    return load_settings().node


@pytest.fixture
def instance(settings: NodeSettings) -> Iterator[str]:
    """The name of an instance that does not exist yet, and is cleaned away afterwards."""
    name = f"test-{uuid.uuid4().hex[:8]}"
    yield name
    nodes.clean(name, settings)


def fill(opensearch: OpenSearch, index: str) -> None:
    settings = {"index.knn": True, "number_of_replicas": 0}
    opensearch.indices.create(index=index, body={"settings": settings, "mappings": MAPPINGS})
    for doc_id, (title, embedding) in DOCUMENTS.items():
        opensearch.index(index=index, id=doc_id, body={"title": title, "embedding": embedding})
    opensearch.indices.refresh(index=index)


def found(opensearch: OpenSearch, index: str, query: dict[str, object]) -> list[str]:
    return [hit["_id"] for hit in opensearch.search(index=index, body={"query": query})["hits"]["hits"]]


def assert_searches(opensearch: OpenSearch, index: str) -> None:
    """Text is stemmed, vectors are found, scripts run."""
    fill(opensearch, index)

    assert found(opensearch, index, {"match": {"title": "fox"}}) == ["fox"]
    assert found(opensearch, index, {"knn": {"embedding": {"vector": [0.1, 1], "k": 1}}}) == ["bear"]
    script = {"source": "cosineSimilarity(params.v, doc['embedding']) + 1", "params": {"v": [1, 0.1]}}
    everything: dict[str, object] = {"match_all": {}}
    ranked = found(opensearch, index, {"script_score": {"query": everything, "script": script}})
    assert ranked == ["fox", "bear"]


@pytest.mark.slow
@pytest.mark.node
def test_a_detached_node_is_found_again_and_keeps_its_data(settings: NodeSettings, instance: str) -> None:
    # With all of Java's compilers, as users have them.
    first = EmbeddedNode.start(instance, settings.model_copy(update={"java_options": None}))
    with servers.client(first.url) as opensearch:
        assert_searches(opensearch, "kept")

    assert EmbeddedNode.start(instance, settings) == first
    assert EmbeddedNode.find(instance, settings) == first

    assert nodes.stop(instance, settings)
    assert EmbeddedNode.find(instance, settings) is None
    assert "closed" in first.log_file.read_text().splitlines()[-1]

    with EmbeddedNode.kept(instance, settings) as second:
        assert second.pid != first.pid
        with servers.client(second.url) as opensearch:
            assert found(opensearch, "kept", {"match": {"title": "fox"}}) == ["fox"]
        with pytest.raises(NodeError, match="runs already"), EmbeddedNode.kept(instance, settings):
            pass

    assert nodes.find_process(instance, settings) is None
    assert nodes.clean(instance, settings)
    assert not first.folder.exists()


@pytest.mark.slow
@pytest.mark.node
def test_a_node_does_not_outlive_an_owner_that_is_killed() -> None:
    owner = subprocess.Popen([sys.executable, "-c", OWNER], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    with owner.stdout:
        pid, version, folder = owner.stdout.readline().split()
    process = NodeProcess(Path(folder), int(pid), version)
    try:
        assert process.is_alive()

        owner.send_signal(signal.SIGKILL)
        owner.wait()

        deadline = time.monotonic() + PATIENCE_S
        while (process.is_alive() or process.folder.exists()) and time.monotonic() < deadline:
            time.sleep(0.2)
        assert not process.is_alive()
        assert not process.folder.exists()
    finally:
        process.end()


@pytest.mark.slow
@pytest.mark.node
def test_a_node_that_refuses_to_start_tells_why_and_leaves_its_log(settings: NodeSettings) -> None:
    plan = replace(plan_node(settings), configuration={"discovery.type": "by-carrier-pigeon"})

    with (
        pytest.raises(NodeError, match="by-carrier-pigeon") as caught,
        EmbeddedNode.owned_as_planned("broken", plan),
    ):
        pass

    log_file = next(word for word in str(caught.value).split() if word.endswith("node.log"))
    assert "by-carrier-pigeon" in Path(log_file).read_text()
    shutil.rmtree(Path(log_file).parent.parent)


@pytest.mark.case("N1")
def test_an_index_template_of_ones_own_is_applied_as_it_is_written(node: EmbeddedNode) -> None:
    index = servers.unused_index_name()
    vector = {"type": "knn_vector", "dimension": 2, "method": {"name": "hnsw", "engine": "lucene", "space_type": "l2"}}
    wanted = {"index.knn": "true", "index.number_of_replicas": "0", "index.refresh_interval": "7s"}
    template = {"settings": wanted, "mappings": {"properties": {"vector": vector}}}
    with servers.client(node.url) as cluster, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the node names the older template that is not applied
        cluster.indices.put_index_template(name=index, body={"index_patterns": [f"{index}*"], "template": template})
        try:
            for i in range(3):
                cluster.index(index=index, id=str(i), body={"vector": [i, 1]}, params={"refresh": "true"})
            [made] = cluster.indices.get_settings(index=index, params={"flat_settings": "true"}).values()
            assert made["settings"].items() >= wanted.items()
            assert "index.knn.advanced.approximate_threshold" not in made["settings"]
            knn = {"knn": {"vector": {"vector": [2, 1], "k": 1}}}
            assert cluster.search(index=index, body={"query": knn})["hits"]["hits"][0]["_id"] == "2"
        finally:
            cluster.indices.delete(index=index)
            cluster.indices.delete_index_template(name=index)


@pytest.mark.case("N1")
@pytest.mark.parametrize("engine", [None, "faiss"])
def test_an_index_of_the_default_engine_does_not_end_the_node(node: EmbeddedNode, engine: str | None) -> None:
    """As Haystack and LangChain create it; `faiss` is the engine that they name."""
    index = servers.unused_index_name()
    vector: dict[str, Any] = {"type": "knn_vector", "dimension": 2}
    if engine is not None:
        vector["method"] = {"name": "hnsw", "engine": engine, "space_type": "l2"}
    with servers.client(node.url) as cluster:
        body = {"settings": {"index.knn": True}, "mappings": {"properties": {"vector": vector}}}
        cluster.indices.create(index=index, body=body)
        for i in range(5):
            cluster.index(index=index, id=str(i), body={"vector": [i, 1]})
        cluster.indices.refresh(index=index)
        cluster.indices.forcemerge(index=index, params={"max_num_segments": "1"})
        knn = {"knn": {"vector": {"vector": [2, 1], "k": 1}}}
        assert cluster.search(index=index, body={"query": knn})["hits"]["hits"][0]["_id"] == "2"
        found = examine(cluster, Settings(cluster=ClusterSettings(url=node.url)))
        assert found.vector_engines == ["lucene"]
        cluster.indices.delete(index=index)
