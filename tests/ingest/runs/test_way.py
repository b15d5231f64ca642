"""An application's index is enriched in place only if nobody feels it; whoever wants another way decides."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opensearchpy import OpenSearch

from bridge.cluster import index as indices
from bridge.cluster.connection import connect
from bridge.errors import IndexUnsuitable, UsageError
from bridge.node.node import EmbeddedNode
from bridge.profile import companion_of
from bridge.settings import ClusterSettings, IngestSettings
from ingest.job import Job
from ingest.runs.beside import run_beside
from ingest.runs.way import Wanted, Way, begun, choose
from ingest.stages.models import profile_for
from tests.ingest.application import TEXT_FIELDS, backfilled, old_application
from tests.ingest.toys import toy_models

PREFIX = "ours."
PROFILE = profile_for(toy_models(), TEXT_FIELDS)
SETTINGS = IngestSettings()


@pytest.fixture
def client(node: EmbeddedNode) -> OpenSearch:
    return connect(ClusterSettings(url=node.url))


@pytest.fixture
def ours(fresh_index: str, client: OpenSearch) -> Iterator[str]:
    """The name of the index's companion, which goes afterwards."""
    name = companion_of(fresh_index, PREFIX)
    yield name
    client.indices.delete(index=name, params={"ignore_unavailable": "true"})


def chosen(client: OpenSearch, index: str, wanted: Wanted | None = None) -> Way:
    state = indices.look(client, index)
    kept = begun(client, state, PREFIX)
    return choose(client, state, PROFILE, SETTINGS, kept=kept, wanted=wanted, prefix=PREFIX)


def test_an_index_that_nothing_speaks_against_is_enriched_in_place(client: OpenSearch, fresh_index: str) -> None:
    old_application(client, fresh_index, 3, dynamic="false")
    before = client.indices.get(index=fresh_index)
    way = chosen(client, fresh_index)
    assert (way.companion, way.where) == (None, "in place")
    assert str(way) == (
        f"{fresh_index}: enriched in place, because nothing speaks against it (--beside decides otherwise)"
    )
    assert client.indices.get(index=fresh_index) == before


@pytest.mark.parametrize(
    ("settings", "mapping", "reason"),
    [
        pytest.param({"index.knn": None}, {}, "index.knn was never set to true", id="no-knn"),
        pytest.param({"index.knn": False}, {}, "index.knn was never set to true", id="knn-off"),
        pytest.param({}, {"dynamic": "strict"}, "its mapping is strict", id="strict"),
        pytest.param({"index.mapping.total_fields.limit": 4}, {}, "total_fields.limit allows 4", id="field-limit"),
        pytest.param({"index.blocks.write": True}, {}, "index.blocks.write is true", id="write-block"),
        pytest.param({"index.blocks.read_only": True}, {}, "index.blocks.read_only is true", id="read-only"),
        pytest.param({"index.final_pipeline": "of-the-application"}, {}, "ingest pipeline", id="pipeline"),
        pytest.param({}, {"_source": {"excludes": ["secret"]}}, "_source.excludes (secret)", id="excluded-field"),
        pytest.param({"index.knn.derived_source.enabled": False}, {"_neural": {"type": "text"}}, "_neural", id="taken"),
    ],
)
def test_what_speaks_against_in_place_leads_beside_and_is_named(
    client: OpenSearch, fresh_index: str, settings: dict[str, Any], mapping: dict[str, Any], reason: str
) -> None:
    fields: dict[str, Any] = {name: {"type": "text"} for name in TEXT_FIELDS}
    if "_neural" in mapping:
        fields, mapping = {**fields, **mapping}, {}
    wanted = {"index.knn": True, "index.number_of_replicas": 0, **settings}
    body = {
        "settings": {name: value for name, value in wanted.items() if value is not None},
        "mappings": {"properties": fields, **mapping},
    }
    client.indices.create(index=fresh_index, body=body)
    way = chosen(client, fresh_index)
    assert way.companion == companion_of(fresh_index, PREFIX)
    assert any(reason in each for each in way.reasons), way.reasons
    assert str(way).startswith(f"{fresh_index}: enriched beside, in {way.companion}, because ")
    assert str(way).endswith("(--in-place decides otherwise)")
    client.indices.put_settings(index=fresh_index, body={"index.blocks.read_only": None})


def test_a_full_disk_is_no_reason_to_begin_beside(client: OpenSearch, fresh_index: str) -> None:
    old_application(client, fresh_index, 1)
    client.indices.put_settings(index=fresh_index, body={"index.blocks.read_only_allow_delete": True})
    with pytest.raises(IndexUnsuitable, match="read_only_allow_delete is true: set that back first"):
        chosen(client, fresh_index)


def test_whoever_wants_a_way_gets_it_or_all_obstacles(client: OpenSearch, fresh_index: str) -> None:
    old_application(client, fresh_index, 3, dynamic="strict")
    assert chosen(client, fresh_index, "in_place").companion is None
    assert chosen(client, fresh_index, "beside").companion == companion_of(fresh_index, PREFIX)
    client.indices.put_settings(
        index=fresh_index, body={"index.blocks.write": True, "index.mapping.total_fields.limit": 4}
    )
    with pytest.raises(IndexUnsuitable, match=r"(?s)in place.*fields.*index\.blocks\.write.*backfill .* --beside"):
        chosen(client, fresh_index, "in_place")


def test_the_way_that_was_begun_goes_on(client: OpenSearch, fresh_index: str, ours: str, tmp_path: Path) -> None:
    old_application(client, fresh_index, 3)
    run_beside(Job(fresh_index, PROFILE, toy_models(), client, SETTINGS, tmp_path / "beside"), PREFIX)
    assert chosen(client, fresh_index).companion == ours
    with pytest.raises(UsageError, match="leave out --in-place"):
        chosen(client, fresh_index, "in_place")
    with pytest.raises(IndexUnsuitable, match=f"the companion of {fresh_index}"):
        chosen(client, ours)
    client.indices.delete(index=ours)
    backfilled(client, fresh_index, toy_models(), PROFILE, tmp_path / "in-place")
    client.indices.put_settings(index=fresh_index, body={"index.default_pipeline": "of-the-application"})
    assert chosen(client, fresh_index).companion is None
    client.indices.put_settings(index=fresh_index, body={"index.blocks.write": True})
    with pytest.raises(IndexUnsuitable, match=f"begin anew with `neural-bridge undo {fresh_index}`"):
        chosen(client, fresh_index)
