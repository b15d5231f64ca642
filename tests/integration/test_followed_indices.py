"""Which indices can be followed, and what ends it: generations, aliases, data streams, indices that are blocked."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from opensearchpy import OpenSearch

from bridge.cluster import index as indices
from bridge.cluster.connection import connect
from bridge.cluster.removal import drop, undo
from bridge.errors import CheckpointUnusable, IndexUnsuitable
from bridge.node.node import EmbeddedNode
from bridge.settings import ClusterSettings
from ingest.job import Job
from ingest.runs.ingest import run_ingest
from ingest.signals import StopRequest
from ingest.sources.source import DocumentsInMemory
from ingest.stages.models import profile_for
from tests.ingest.application import TEXT_FIELDS, old_application, source
from tests.ingest.follow.test_follower import FAST, backfill, caught_up, follower
from tests.ingest.toys import toy_models, wider_models


@pytest.fixture
def client(node: EmbeddedNode) -> OpenSearch:
    return connect(ClusterSettings(url=node.url))


@pytest.fixture
def enriched_index(client: OpenSearch, fresh_index: str, tmp_path: Path) -> str:
    old_application(client, fresh_index, 60)
    backfill(client, fresh_index, tmp_path / "backfill")
    return fresh_index


def test_generations_are_followed_each_by_its_own_models(
    client: OpenSearch, enriched_index: str, tmp_path: Path
) -> None:
    backfill(client, enriched_index, tmp_path / "second", wider_models())
    with pytest.raises(IndexUnsuitable, match="queries predicted by other-generator"):
        follower(client, enriched_index, tmp_path / "two", generation=2)
    client.update(index=enriched_index, id="d7", body={"doc": {"text": "for both generations"}})
    caught_up(client, enriched_index, tmp_path / "one")
    caught_up(client, enriched_index, tmp_path / "two", generation=2, models=wider_models())
    neural = source(client, enriched_index, "d7")["_neural"]
    assert neural["predicted_queries"] == neural["generation_2"]["predicted_queries"]
    assert (len(neural["embedding"]), len(neural["generation_2"]["embedding"])) == (4, 6)

    stop = StopRequest()
    with follower(client, enriched_index, tmp_path / "two", generation=2, models=wider_models(), stop=stop) as second:
        drop(client, enriched_index, 2)
        client.update(index=enriched_index, id="d7", body={"doc": {"text": "after it was dropped"}})
        with pytest.raises(IndexUnsuitable, match=r"generation 2 of .* was dropped or undone"):
            second.follow()
    assert "generation_2" not in source(client, enriched_index, "d7")["_neural"]


def test_only_an_index_that_is_enriched_can_be_followed_and_by_one_follower(
    client: OpenSearch, fresh_index: str, tmp_path: Path
) -> None:
    old_application(client, fresh_index, 3)
    with pytest.raises(IndexUnsuitable, match="begin with `neural-bridge backfill"):
        follower(client, fresh_index, tmp_path)
    backfill(client, fresh_index, tmp_path / "backfill")
    with follower(client, fresh_index, tmp_path), pytest.raises(CheckpointUnusable, match="in use"):
        caught_up(client, fresh_index, tmp_path)
    undo(client, fresh_index)
    with pytest.raises(IndexUnsuitable, match="begin with `neural-bridge backfill"):
        follower(client, fresh_index, tmp_path)


def test_an_alias_that_moves_on_is_not_followed_by_accident(
    client: OpenSearch, enriched_index: str, tmp_path: Path
) -> None:
    alias = f"{enriched_index}-alias"
    client.indices.put_alias(index=enriched_index, name=alias)
    with follower(client, alias, tmp_path / "state") as following:
        client.indices.create(index=f"{enriched_index}-2")
        moved = [
            {"remove": {"index": enriched_index, "alias": alias}},
            {"add": {"index": f"{enriched_index}-2", "alias": alias}},
        ]
        client.indices.update_aliases(body={"actions": moved})
        try:
            with pytest.raises(IndexUnsuitable, match="start the follower again"):
                following.follow(once=True)
        finally:
            client.indices.delete(index=f"{enriched_index}-2")


@pytest.fixture
def data_stream(client: OpenSearch, fresh_index: str) -> Iterator[str]:
    """A data stream with three documents."""
    body = {"index.knn": True, "index.knn.derived_source.enabled": False, "index.number_of_replicas": 0}
    mapping = {"properties": {"title": {"type": "text"}, "text": {"type": "text"}}}
    template = {"index_patterns": [fresh_index], "data_stream": {}, "template": {"settings": body, "mappings": mapping}}
    client.indices.put_index_template(name=fresh_index, body=template)
    for number in range(3):
        document = {"@timestamp": "2026-01-01T00:00:00Z", "title": f"event {number}", "text": "something happened"}
        client.index(index=fresh_index, body=document, params={"op_type": "create", "refresh": "true"})
    yield fresh_index
    client.indices.delete_data_stream(name=fresh_index)
    client.indices.delete_index_template(name=fresh_index)


@pytest.mark.case("I31")
# The embedded node has a template of its own, see docs/decisions/0002-embedded-node.md.
@pytest.mark.filterwarnings("ignore:index template .* matching patterns from existing older templates")
def test_a_data_stream_is_enriched_and_followed_index_by_index(
    client: OpenSearch, data_stream: str, tmp_path: Path
) -> None:
    backfill(client, data_stream, tmp_path / "backfill")
    client.index(index=data_stream, body={"@timestamp": "2026-01-02T00:00:00Z", "title": "later", "text": "followed"})
    assert caught_up(client, data_stream, tmp_path / "state").ledger.written == 1
    with pytest.raises(IndexUnsuitable, match="takes new documents by its own name alone"):
        run_ingest(
            DocumentsInMemory([]),
            Job(
                index=data_stream,
                profile=profile_for(toy_models(), TEXT_FIELDS),
                models=toy_models(),
                client=client,
                settings=FAST,
                state_folder=tmp_path / "ingest",
            ),
        )
    [first] = client.indices.get(index=data_stream)
    client.indices.rollover(alias=data_stream)
    with pytest.raises(IndexUnsuitable, match=rf"names 2 indices \({first}, .*name one of them"):
        follower(client, data_stream, tmp_path / "state")
    assert caught_up(client, first, tmp_path / "state").ledger.written == 0


@pytest.mark.case("I31")
@pytest.mark.parametrize("block", ["write", "read_only", "read_only_allow_delete"])
def test_an_index_that_takes_no_documents_is_refused_before_anything_changes(
    client: OpenSearch, fresh_index: str, tmp_path: Path, block: str
) -> None:
    old_application(client, fresh_index, 3)
    before = indices.look(client, fresh_index).mapping
    client.indices.put_settings(index=fresh_index, body={f"index.blocks.{block}": True})
    with pytest.raises(IndexUnsuitable, match=rf"index\.blocks\.{block} is true.*nothing was changed"):
        backfill(client, fresh_index, tmp_path)
    client.indices.put_settings(index=fresh_index, body={f"index.blocks.{block}": None})
    assert indices.look(client, fresh_index).mapping == before
