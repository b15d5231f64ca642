"""What changes while an index is in use, on every engine: documents, and the models that made its vectors."""

from pathlib import Path
from typing import Any

import pytest
from opensearchpy import OpenSearch

from bridge.cluster import index as indices
from bridge.cluster.generations import Generations, newer, next_generation, serve
from bridge.cluster.removal import drop
from bridge.settings import IngestSettings
from ingest.follow.fields import followed_profile
from ingest.follow.follower import Follower
from ingest.follow.state import FollowStatus
from ingest.job import Job
from ingest.runs.backfill import run_backfill
from ingest.runs.verify import verify
from ingest.signals import StopRequest
from ingest.stages.models import profile_for
from tests.ingest.toys import WIDER, toy_models, wider_models
from tests.integration.compatibility.conftest import Engine
from tests.integration.compatibility.test_documents import FIELDS, application_index, backfill, source


def caught_up(client: OpenSearch, index: str, folder: Path) -> FollowStatus:
    """What a follower finds to do, and does."""
    models = toy_models()
    profile = followed_profile(indices.look(client, index), None, models)
    job = Job(index, profile, models, client, IngestSettings(), folder)
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
