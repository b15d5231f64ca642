"""What changes while an index is in use, on every engine: documents, and the models that made its vectors."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opensearchpy import OpenSearch

from bridge.cluster import companion
from bridge.cluster import index as indices
from bridge.cluster.generations import Generations, newer, next_generation, serve
from bridge.cluster.removal import drop
from bridge.cluster.shard_progress import index_progress
from bridge.profile import companion_of
from bridge.settings import IngestSettings
from ingest.follow.fields import followed_profile
from ingest.follow.follower import Follower
from ingest.follow.state import FollowStatus
from ingest.job import Job
from ingest.runs.backfill import run_backfill
from ingest.runs.beside import run_beside
from ingest.runs.verify import verify
from ingest.signals import StopRequest
from ingest.stages.models import profile_for
from tests.ingest.toys import WIDER, toy_models, wider_models
from tests.integration.compatibility.conftest import Engine
from tests.integration.compatibility.test_documents import (
    FIELDS,
    MAPPING,
    SINGLE,
    application_index,
    backfill,
    source,
    write_documents,
)

PREFIX = "ours-"


@pytest.fixture
def beside(client: OpenSearch, index_name: str, tmp_path: Path) -> Iterator[str]:
    """An index with a companion, as an application made it that knows nothing of k-NN."""
    body = {"settings": {"number_of_replicas": 0, "number_of_shards": 2}, "mappings": {"properties": MAPPING}}
    client.indices.create(index=index_name, body=body)
    write_documents(client, index_name, 30)
    run_beside(Job(index_name, SINGLE, toy_models(), client, IngestSettings(), tmp_path / "beside"), PREFIX)
    yield index_name
    companion.remove(client, index_name, PREFIX)


def caught_up(client: OpenSearch, index: str, folder: Path) -> FollowStatus:
    """What a follower finds to do, and does."""
    models, enriched = toy_models(), companion.enriched(client, index, PREFIX)
    job = Job(enriched.name, followed_profile(enriched, None, models), models, client, IngestSettings(), folder)
    with Follower(job, StopRequest()) as following:
        return following.follow(once=True)


def predicted(document: dict[str, Any]) -> list[str]:
    found: list[str] = document["_neural"]["predicted_queries"]
    return found


@pytest.mark.feature("follow: what is written and changed is enriched as it comes")
def test_a_follower_enriches_what_was_written_since(
    client: OpenSearch, engine: Engine, index_name: str, tmp_path: Path
) -> None:
    application_index(client, engine, index_name, 20, shards=2)
    backfill(client, index_name, tmp_path)
    assert caught_up(client, index_name, tmp_path / "follow").ledger.written == 0
    client.index(index=index_name, id="new", body={"title": "fresh words", "text": "of today"})
    client.update(index=index_name, id="d3", body={"doc": {"title": "another title"}})
    client.delete(index=index_name, id="d4")
    done = caught_up(client, index_name, tmp_path / "follow")
    assert (done.ledger.written, done.ledger.dead_lettered) == (2, 0)
    assert predicted(source(client, index_name, "new"))[0] == "what is fresh"
    assert predicted(source(client, index_name, "d3"))[0] == "what is another"
    assert caught_up(client, index_name, tmp_path / "follow").ledger.written == 0


@pytest.mark.feature("follow beside: what is written, changed and deleted reaches the companion")
def test_a_follower_only_reads_an_index_that_has_a_companion(client: OpenSearch, beside: str, tmp_path: Path) -> None:
    folder = tmp_path / "follow"
    assert caught_up(client, beside, folder).ledger.written == 0
    client.index(index=beside, id="new", body={"title": "fresh words", "text": "of today"})
    client.update(index=beside, id="d3", body={"doc": {"title": "another title"}})
    client.delete(index=beside, id="d4")
    before = client.indices.get(index=beside), index_progress(client, beside).shards
    done = caught_up(client, beside, folder)
    assert (done.ledger.written, done.ledger.dead_lettered, done.removed) == (2, 0, 1)
    assert (client.indices.get(index=beside), index_progress(client, beside).shards) == before
    ours = companion_of(beside, PREFIX)
    client.indices.refresh(index=ours)
    assert predicted(source(client, ours, "new"))[0] == "what is fresh"
    assert predicted(source(client, ours, "d3"))[0] == "what is another"
    assert indices.count(client, ours) == indices.count_enriched(client, ours, SINGLE) == 30
    assert caught_up(client, beside, folder).ledger.written == 0


@pytest.mark.feature("generations: another encoder beside the serving one, verified, cut over, rolled back, dropped")
def test_models_change_and_back_again(client: OpenSearch, engine: Engine, index_name: str, tmp_path: Path) -> None:
    application_index(client, engine, index_name, 30)
    backfill(client, index_name, tmp_path)
    other_models = wider_models()
    wanted = next_generation(indices.look(client, index_name), profile_for(other_models, FIELDS.text_fields))
    filled = run_backfill(
        Job(
            index_name,
            profile=wanted,
            models=other_models,
            client=client,
            settings=IngestSettings(),
            state_folder=tmp_path / "second",
        ),
    )
    assert (filled.report.exit_code, filled.report.ledger.written) == (0, 30)
    client.indices.refresh(index=index_name)
    standing = Generations.of(client, index_name, "neural-bridge.")
    state = standing.state
    beside = newer(state)
    found = verify(client, standing, beside)
    assert (found.enriched, found.made_alike, found.problems) == (30, 30, [])

    serve(client, index_name, 2)
    assert indices.look(client, index_name).profile == beside
    assert beside.dimension == WIDER
    serve(client, index_name, 1)
    assert indices.look(client, index_name).profile == state.profile
    serve(client, index_name, 2)
    assert drop(client, index_name, 1).documents == 30
    assert list(source(client, index_name, "d7")["_neural"]) == ["generation_2"]


@pytest.mark.feature("generations beside: a second companion, verified, cut over, rolled back, the first one dropped")
def test_models_change_by_a_second_companion(client: OpenSearch, beside: str, tmp_path: Path) -> None:
    before = client.indices.get(index=beside), index_progress(client, beside).shards
    wanted = next_generation(
        Generations.of(client, beside, PREFIX).state, profile_for(wider_models(), FIELDS.text_fields)
    )
    filled = run_beside(Job(beside, wanted, wider_models(), client, IngestSettings(), tmp_path / "second"), PREFIX)
    assert (filled.report.exit_code, filled.report.ledger.written) == (0, 30)

    def standing() -> Generations:
        return Generations.of(client, beside, PREFIX)

    first, second = standing().state.profile, newer(standing().state)
    assert first is not None
    found = verify(client, standing(), second)
    assert (found.enriched, found.made_alike, found.problems) == (30, 30, [])
    for serving, other in ((second, first), (first, second), (second, first)):
        standing().serve(client, PREFIX, serving)
        assert (standing().state.profile, standing().state.beside) == (serving, other)
        assert companion.enriched(client, beside, PREFIX).profile == serving
    assert standing().drop(client, PREFIX, first) == (30, [])
    assert client.indices.exists(index=companion_of(beside, PREFIX, 2))
    assert not client.indices.exists(index=companion_of(beside, PREFIX, 1))
    assert (client.indices.get(index=beside), index_progress(client, beside).shards) == before
