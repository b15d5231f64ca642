"""Commands on an index of an application, with a toy encoder."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from opensearchpy import OpenSearch

from bridge.cli import cli
from bridge.errors import BridgeError, exit_code
from bridge.node.node import EmbeddedNode
from tests.toys import WORDS, make_toy_encoder

Call = Callable[..., Result]


@pytest.fixture
def call(node: EmbeddedNode, tmp_path: Path) -> Call:
    """Calls a command in this process, as it is typed."""
    environment = {
        "BRIDGE_CLUSTER__URL": node.url,
        "BRIDGE_INGEST__ENCODER": str(make_toy_encoder(tmp_path / "encoder", WORDS).path),
        "BRIDGE_INGEST__GENERATOR": "",
        "BRIDGE_INGEST__THREADS": "1",
        "XDG_STATE_HOME": str(tmp_path / "state"),
    }
    return lambda *arguments: CliRunner().invoke(cli, arguments, env=environment)


def printed(result: Result) -> Any:
    """The JSON object that a command printed."""
    assert result.stdout, result.output
    return json.loads(result.stdout)


def refusal(result: Result) -> str:
    """Why a command refused to work, with exit code 2."""
    assert isinstance(result.exception, BridgeError), result.output
    assert exit_code(result.exception) == 2
    return str(result.exception)


@pytest.fixture
def products(opensearch: OpenSearch, fresh_index: str) -> str:
    """An index of an application with a text field and 30 documents."""
    make_products(opensearch, fresh_index)
    return fresh_index


@pytest.fixture
def companion(opensearch: OpenSearch, fresh_index: str) -> Iterator[str]:
    """The name of the companion of `fresh_index`, which goes afterwards."""
    yield f"neural-bridge.{fresh_index}"
    opensearch.indices.delete(index=f"neural-bridge.{fresh_index}", params={"ignore_unavailable": "true"})


@pytest.fixture
def products_beside(call: Call, opensearch: OpenSearch, fresh_index: str, companion: str) -> Iterator[str]:
    """`products`, enriched beside itself; nobody may change its mapping or settings."""
    make_products(opensearch, fresh_index, **{"index.knn": False})
    assert call("backfill", fresh_index, "--beside", "--text-field", "title").exit_code == 0
    assert opensearch.indices.exists(index=companion)
    before = opensearch.indices.get(index=fresh_index)
    yield fresh_index
    assert opensearch.indices.get(index=fresh_index) == before


def make_products(opensearch: OpenSearch, index: str, **settings: Any) -> None:
    """Creates the index of an application, with these index settings."""
    body = {
        "settings": {"index.knn": True, "index.number_of_replicas": 0, **settings},
        "mappings": {"properties": {"title": {"type": "text"}, "shop": {"properties": {"city": {"type": "keyword"}}}}},
    }
    opensearch.indices.create(index=index, body=body)
    lines: list[object] = []
    for i in range(30):
        lines += [{"index": {"_id": f"d{i}"}}, {"title": f"{WORDS[i % len(WORDS)]} {i}", "shop": {"city": "Rome"}}]
    opensearch.bulk(index=index, body="".join(json.dumps(line) + "\n" for line in lines), params={"refresh": "true"})
