"""The models of an index change while it is in use, and back again: two generations of fields side by side."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from opensearchpy import OpenSearch

from bridge.cluster import index as indices
from bridge.cluster.connection import connect
from bridge.cluster.generations import newer, next_generation, older, serve
from bridge.cluster.removal import drop, undo
from bridge.errors import IndexUnsuitable
from bridge.node.node import EmbeddedNode
from bridge.profile import FusionSettings, IndexProfile, PassageSettings
from bridge.records import Document, SourcePosition
from bridge.settings import ClusterSettings, IngestSettings
from ingest.books.ledger import Report
from ingest.job import Job
from ingest.runs.backfill import run_backfill
from ingest.runs.ingest import run_ingest
from ingest.sources.source import DocumentsInMemory
from ingest.stages.models import Models, profile_for
from tests.ingest.application import TEXT_FIELDS, fill_generation, old_application, source
from tests.ingest.toys import WIDER, toy_models, wider_models


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


def serving(client: OpenSearch, index: str) -> IndexProfile:
    profile = indices.look(client, index).profile
    assert profile is not None
    return profile


def ids_by_vector(client: OpenSearch, index: str, profile: IndexProfile, length: int) -> list[str]:
    """The documents whose text has this length, as a search by vector finds them."""
    vector = np.eye(profile.dimension)[length % profile.dimension].tolist()
    body = {"size": 3, "query": {"knn": {profile.embedding_field: {"vector": vector, "k": 3}}}}
    hits: list[dict[str, Any]] = client.search(index=index, body=body)["hits"]["hits"]
    return [hit["_id"] for hit in hits]


def test_the_second_generation_is_filled_beside_the_first_which_goes_on_serving(
    fill: Fill, client: OpenSearch, fresh_index: str
) -> None:
    old_application(client, fresh_index, 120)
    fill(toy_models())
    first = source(client, fresh_index, "d7")["_neural"]
    report = fill(wider_models())
    assert report.ledger.written == 120
    assert serving(client, fresh_index).encoder.name == "toy-encoder"
    stored = source(client, fresh_index, "d7")["_neural"]
    second = stored.pop("generation_2")
    assert stored == first
    assert (len(first["embedding"]), len(second["embedding"])) == (4, WIDER)
    assert fill(wider_models()).ledger.unchanged == 120


def test_cutting_over_and_rolling_back_change_the_profile_and_no_document(
    fill: Fill, client: OpenSearch, fresh_index: str
) -> None:
    old_application(client, fresh_index, 30, _meta={"owner": "shop"})
    fill(toy_models())
    fill(wider_models())
    before = indices.look(client, fresh_index)
    document = client.get(index=fresh_index, id="d3")

    assert newer(before).generation == 2
    cut_over = newer(before)
    for _ in range(2):
        # Once more, as after a run that was killed when it had just requested this: it stays.
        serve(client, fresh_index, 2)
    assert (cut_over.encoder.name, cut_over.embedding_field) == ("wider-encoder", "_neural.generation_2.embedding")
    assert serving(client, fresh_index) == cut_over
    assert len(ids_by_vector(client, fresh_index, cut_over, 15)) == 3
    with pytest.raises(IndexUnsuitable, match=r"generation 2 of .* serves searches already"):
        newer(indices.look(client, fresh_index))

    assert older(indices.look(client, fresh_index)).generation == 1
    serve(client, fresh_index, 1)
    assert indices.look(client, fresh_index) == before
    with pytest.raises(IndexUnsuitable, match="no generation 3"):
        serve(client, fresh_index, 3)
    assert client.get(index=fresh_index, id="d3") == document
    assert before.mapping["_meta"]["owner"] == "shop"


def test_what_an_operator_chose_for_searches_is_taken_over_without_its_evidence(
    fill: Fill, client: OpenSearch, fresh_index: str
) -> None:
    old_application(client, fresh_index, 5)
    fill(toy_models())
    state = indices.look(client, fresh_index)
    chosen = msgspec.structs.replace(serving(client, fresh_index), fusion=FusionSettings(method="rrf"), window=50)
    indices.put_meta(client, state.name, lambda meta: {**meta, "neural_bridge": chosen.to_meta()})
    following = next_generation(indices.look(client, fresh_index), profile_for(wider_models(), TEXT_FIELDS))
    assert (following.fusion.method, following.window, following.gate) == ("rrf", 50, None)


def test_documents_ingested_after_the_cut_over_get_the_fields_that_serve(
    fill: Fill, client: OpenSearch, fresh_index: str, tmp_path: Path
) -> None:
    old_application(client, fresh_index, 10)
    fill(toy_models())
    fill(wider_models())
    serve(client, fresh_index, 2)
    profile = serving(client, fresh_index)
    texts = {"title": "new", "text": "ingested later"}
    documents = [Document("new", b'{"title":"new","text":"ingested later"}', texts, SourcePosition("test", 1))]
    report = run_ingest(
        DocumentsInMemory(documents),
        Job(
            index=fresh_index,
            profile=profile_for(wider_models(), TEXT_FIELDS, kept=profile),
            models=wider_models(),
            client=client,
            settings=IngestSettings(),
            state_folder=tmp_path / "ingest",
        ),
    )
    assert report.ledger.written == 1
    neural = source(client, fresh_index, "new")["_neural"]
    assert list(neural) == ["generation_2"]


def test_dropping_removes_the_generation_that_serves_no_searches_and_proves_it(
    fill: Fill, client: OpenSearch, fresh_index: str
) -> None:
    old_application(client, fresh_index, 50)
    fill(toy_models())
    first = source(client, fresh_index, "d7")
    fill(wider_models())
    with pytest.raises(IndexUnsuitable, match="no generation 1 beside"):
        drop(client, fresh_index, 1)
    assert drop(client, fresh_index, 2).documents == 50
    assert source(client, fresh_index, "d7") == first
    with pytest.raises(IndexUnsuitable, match="nothing to drop"):
        drop(client, fresh_index, 2)


def test_the_first_generation_can_be_dropped_once_the_second_serves(
    fill: Fill, client: OpenSearch, fresh_index: str
) -> None:
    old_application(client, fresh_index, 50)
    fill(toy_models())
    fill(wider_models())
    serve(client, fresh_index, 2)
    profile = serving(client, fresh_index)
    with pytest.raises(IndexUnsuitable, match="no generation 2 beside"):
        drop(client, fresh_index, 2)
    assert drop(client, fresh_index, 1).documents == 50
    assert list(source(client, fresh_index, "d7")["_neural"]) == ["generation_2"]
    assert len(ids_by_vector(client, fresh_index, profile, 15)) == 3
    # Its number is not given again: the mapping remembers its fields, with their dimension.
    assert next_generation(indices.look(client, fresh_index), profile_for(toy_models(), TEXT_FIELDS)).generation == 3


def test_a_run_with_another_encoder_is_told_the_way_and_changes_nothing(
    fill: Fill, client: OpenSearch, fresh_index: str, tmp_path: Path
) -> None:
    old_application(client, fresh_index, 5)
    fill(toy_models())
    before = indices.look(client, fresh_index)
    asked = profile_for(wider_models(), TEXT_FIELDS, passages=PassageSettings("nested"), kept=before.profile)
    with pytest.raises(IndexUnsuitable, match=r"(?s)encoder toy-encoder.*passage layout.*generation fill"):
        run_backfill(
            Job(
                fresh_index,
                profile=asked,
                models=wider_models(),
                client=client,
                settings=IngestSettings(),
                state_folder=tmp_path / "other",
            ),
        )
    assert indices.look(client, fresh_index) == before


def test_only_one_generation_stands_beside_the_serving_one(fill: Fill, client: OpenSearch, fresh_index: str) -> None:
    old_application(client, fresh_index, 5)
    fill(toy_models())
    with pytest.raises(IndexUnsuitable, match="is made by toy-encoder@000000000000 and toy-generator"):
        fill(toy_models())
    fill(wider_models())
    with pytest.raises(IndexUnsuitable, match="there is room for one"):
        fill(wider_models(), passages=PassageSettings("nested"))


def test_undo_removes_every_generation_also_where_a_document_has_but_one(
    fill: Fill, client: OpenSearch, fresh_index: str
) -> None:
    old_application(client, fresh_index, 40, _meta={"owner": "shop"})
    untouched = source(client, fresh_index, "d7")
    fill(toy_models())
    fill(wider_models(), passages=PassageSettings("nested", 3, 1))
    remove = {"lang": "painless", "source": "ctx._source._neural.remove('generation_2')"}
    client.update(index=fresh_index, id="d3", body={"script": remove})
    serve(client, fresh_index, 2)
    done = undo(client, fresh_index)
    assert done.documents == 40
    assert source(client, fresh_index, "d7") == untouched
    assert "_neural" not in source(client, fresh_index, "d3")
    state = indices.look(client, fresh_index)
    assert (state.mapping["_meta"], state.profile, state.beside) == ({"owner": "shop"}, None, None)
    assert "_neural.generation_2.passages.embedding" in done.mapped_fields
    for kept in ("_neural.stamp", "_neural.generation_2.stamp", "_neural.predicted_queries"):
        assert client.count(index=fresh_index, body={"query": {"exists": {"field": kept}}})["count"] == 0
