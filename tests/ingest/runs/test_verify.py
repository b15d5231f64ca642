"""Verification finds every reason why a generation should not serve searches."""

from collections.abc import Callable
from pathlib import Path

import pytest
from opensearchpy import OpenSearch

from bridge.cluster.connection import connect
from bridge.cluster.generations import Generations, other
from bridge.node.node import EmbeddedNode
from bridge.profile import PassageSettings
from bridge.settings import ClusterSettings
from ingest.books.ledger import Report
from ingest.runs.verify import verify
from ingest.stages.models import Models
from tests.ingest.application import fill_generation, old_application
from tests.ingest.toys import toy_models, wider_models


@pytest.fixture
def client(node: EmbeddedNode) -> OpenSearch:
    return connect(ClusterSettings(url=node.url))


Fill = Callable[..., Report]


@pytest.fixture
def fill(client: OpenSearch, fresh_index: str, tmp_path: Path) -> Fill:
    """See `fill_generation`."""

    def run(models: Models, *, passages: PassageSettings | None = None) -> Report:
        return fill_generation(client, fresh_index, models, tmp_path, passages=passages)

    return run


def test_verification_finds_what_is_missing_outdated_or_made_otherwise(
    fill: Fill, client: OpenSearch, fresh_index: str
) -> None:
    old_application(client, fresh_index, 60)
    fill(toy_models())
    fill(wider_models())
    standing = Generations.of(client, fresh_index, "neural-bridge.")
    found = verify(client, standing, other(standing.state))
    assert (found.documents, found.enriched, found.made_alike, found.outdated) == (60, 60, 60, 0)
    assert (found.compared, found.recall, found.problems) == (20, 1.0, [])

    client.update(index=fresh_index, id="d3", body={"doc": {"text": "another text"}})
    assert "1 changed after" in verify(client, standing, other(standing.state)).problems[0]
    client.index(index=fresh_index, id="new", body={"title": "new", "text": "came later"})
    found = verify(client, standing, other(standing.state))
    assert (found.documents, found.enriched) == (61, 60)
    assert found.problems[0] == "1 of 61 documents lack its fields: fill it again"
    assert len(found.problems) == 2
    assert verify(client, standing, other(standing.state), max_missing=5).problems == []


def test_verification_follows_passages_and_misses_neighbours_that_are_not_found(
    fill: Fill, client: OpenSearch, fresh_index: str
) -> None:
    old_application(client, fresh_index, 40)
    fill(toy_models())
    fill(wider_models(), passages=PassageSettings("nested", 3, 1))
    standing = Generations.of(client, fresh_index, "neural-bridge.")
    found = verify(client, standing, other(standing.state), compared=5)
    assert (found.compared, found.recall) == (5, 1.0)
    assert verify(client, standing, other(standing.state), compared=5, min_recall=1.01).problems
