"""A real cluster without the k-NN plugin: it says so, and predicted queries and reranking work all the same."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import requests
from click.testing import CliRunner, Result
from opensearchpy import OpenSearch

from bridge.cli import cli
from bridge.cluster import index as indices
from bridge.errors import NodeError
from bridge.node.blueprint import Part
from bridge.node.launch import NodePlan, plan_node
from bridge.node.node import EmbeddedNode
from bridge.settings import ClusterSettings, load_settings
from tests import servers
from tests.proxy_stack import PREFIX, ProxyStack, proxy_stack
from tests.toys import WORDS, make_toy_query_generator

DROPPED = "every"
"""The application's index drops this word."""

DOCUMENTS = {word: {"title": f"about {word}", "body": f"{word} and more"} for word in [*WORDS[:20], DROPPED]}


def without_plugins(plan: NodePlan) -> NodePlan:
    """The same node with its modules only: the home of a cluster on which nobody installed k-NN."""
    blueprint = plan.blueprint
    modules = tuple(part for part in blueprint.parts if not part.folder.startswith("plugins/"))
    empty = Part("plugins", files=(), plugin_class="", extends=(), permissions=())
    return replace(plan, blueprint=replace(blueprint, parts=(*modules, empty), identity=f"{blueprint.identity}-bare"))


@pytest.fixture(scope="module")
def bare_node() -> Iterator[EmbeddedNode]:
    try:
        plan = plan_node(load_settings().node)
    except NodeError as error:
        pytest.skip(str(error))
    with EmbeddedNode.owned_as_planned("tests-bare", without_plugins(plan)) as running:
        yield running


@pytest.fixture
def stack(bare_node: EmbeddedNode, tmp_path: Path) -> Iterator[ProxyStack]:
    with proxy_stack(ClusterSettings(url=bare_node.url), tmp_path, budget_ms=60_000) as running:
        yield running


@pytest.fixture
def application_index(bare_node: EmbeddedNode) -> Iterator[str]:
    """As an application wrote it."""
    name = servers.unused_index_name()
    with servers.client(bare_node.url) as client:
        properties = {"title": {"type": "text"}, "body": {"type": "text"}}
        analysis = {"analyzer": {"default": {"type": "standard", "stopwords": [DROPPED]}}}
        body = {"settings": {"analysis": analysis}, "mappings": {"properties": properties}}
        client.indices.create(index=name, body=body)
        lines: list[dict[str, Any]] = []
        for doc_id, document in DOCUMENTS.items():
            lines += [{"index": {"_id": doc_id}}, document]
        client.bulk(index=name, body=lines, params={"refresh": "true"})
        yield name
        client.indices.delete(index=f"{name},{PREFIX}{name}", ignore_unavailable=True)


def neural_bridge(node: EmbeddedNode, stack: ProxyStack, folder: Path, *arguments: str) -> Result:
    environment = {
        "BRIDGE_CLUSTER__URL": node.url,
        "BRIDGE_PROXY__SIDECAR_URL": stack.sidecar_url,
        "BRIDGE_INGEST__ENCODER": str(folder / "encoder"),
        "BRIDGE_INGEST__GENERATOR": str(make_toy_query_generator(folder / "generator").path),
        "XDG_STATE_HOME": str(folder / "state"),
    }
    return CliRunner().invoke(cli, arguments, env=environment)


@pytest.mark.node
def test_a_cluster_without_vectors_is_enriched_searched_and_told_of(
    bare_node: EmbeddedNode, stack: ProxyStack, application_index: str, tmp_path: Path
) -> None:
    fields = ("--text-field", "title", "--text-field", "body")
    filled = neural_bridge(bare_node, stack, tmp_path, "backfill", application_index, *fields, "--quiet")
    assert filled.exit_code == 0, filled.output
    with servers.client(bare_node.url) as client:
        assert_enriched_without_vectors(client, application_index)

    told = neural_bridge(bare_node, stack, tmp_path, "doctor", "--json")
    found = json.loads(told.stdout[told.stdout.index("{\n") :])
    assert (told.exit_code, found["fit"], found["vector_engines"]) == (0, True, [])
    [vectors] = [finding for finding in found["findings"] if finding["subject"] == "vectors"]
    assert "without vectors" in vectors["told"]
    assert "opensearch-knn" in vectors["remedy"]

    word = WORDS[3]
    query = {"multi_match": {"query": word, "fields": ["title", "body"]}}
    answered = requests.post(f"{stack.url}/{application_index}/_search", json={"query": query}, timeout=120)
    assert answered.status_code == 200
    assert answered.json()["hits"]["hits"][0]["_id"] == word
    mark = answered.headers["x-bridge"]
    assert "rerank" in mark
    assert "degraded" not in mark


@pytest.mark.node
@pytest.mark.parametrize("way", ["--in-place", "--beside"])
def test_without_vectors_terms_are_the_neural_leg(
    bare_node: EmbeddedNode, stack: ProxyStack, application_index: str, tmp_path: Path, way: str
) -> None:
    """The index drops one of the query's words: only its term finds the document that has it."""
    with servers.client(bare_node.url) as client:
        fields = ("--text-field", "title", "--text-field", "body", "--sparse-encoder", str(tmp_path / "sparse_encoder"))
        filled = neural_bridge(bare_node, stack, tmp_path, "backfill", application_index, *fields, way, "--quiet")
        assert filled.exit_code == 0, filled.output
        client.indices.refresh(index=application_index)
        query = {"bool": {"must": [{"match": {"title": f"{WORDS[5]} {DROPPED}"}}]}}
        answered = requests.post(
            f"{stack.url}/{application_index}/_search",
            json={"query": query},
            headers={"x-bridge": "explain"},
            timeout=120,
        )
        undone = neural_bridge(bare_node, stack, tmp_path, "undo", application_index, "--yes")
        assert undone.exit_code == 0, undone.output
        left = client.search(index=application_index, body={"query": {"match_all": {}}, "size": 100})["hits"]["hits"]
    assert answered.headers["x-bridge"].startswith("hybrid+rerank;")
    explained = {hit["_id"]: hit["_bridge"] for hit in answered.json()["hits"]["hits"]}
    found = {doc_id: each["legs"].keys() for doc_id, each in explained.items()}
    assert found == {WORDS[5]: {"expansion", "lexical", "sparse"}, DROPPED: {"sparse"}}
    # Codes of their terms tell that the two have words in common.
    [neighbour] = explained[DROPPED]["smoothed"]["neighbours"]
    assert neighbour["_id"] == WORDS[5]
    assert {hit["_id"]: hit["_source"] for hit in left} == DOCUMENTS


def assert_enriched_without_vectors(client: OpenSearch, index: str) -> None:
    client.indices.refresh(index=index)
    profile = indices.look(client, index).profile
    assert profile is not None
    assert profile.vector_type == "none"
    assert indices.count_enriched(client, index, profile) == len(DOCUMENTS)
    stored = client.get(index=index, id=WORDS[3])["_source"][profile.object_field]
    assert stored["predicted_queries"]
    assert "embedding" not in stored
