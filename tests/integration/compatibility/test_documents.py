"""The document side on every engine: indices made, filled, enriched in place and beside, and cleaned."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from numpy.typing import NDArray
from opensearchpy import OpenSearch

from bridge.cluster import companion
from bridge.cluster import index as indices
from bridge.cluster.connection import exchange
from bridge.cluster.removal import undo
from bridge.cluster.shard_progress import index_progress
from bridge.profile import IndexProfile, PassageSettings
from bridge.records import SourcePosition
from bridge.settings import IngestSettings
from ingest.books.ledger import Report
from ingest.job import Job
from ingest.runs.backfill import BackfillReport, run_backfill
from ingest.runs.beside import run_beside
from ingest.runs.ingest import run_ingest
from ingest.sources.documents import FieldChoice, document_of
from ingest.sources.json_bytes import Entry
from ingest.sources.source import DocumentsInMemory
from ingest.stages.models import Models, profile_for
from tests.ingest.application import planned
from tests.ingest.toys import CountingEncoder, toy_models
from tests.integration.compatibility.conftest import Engine
from tests.integration.test_node import assert_searches

FIELDS = FieldChoice(text_fields=["title", "text"], id_field="id")
SINGLE = profile_for(toy_models(), FIELDS.text_fields)
NESTED = profile_for(toy_models(), FIELDS.text_fields, passages=PassageSettings("nested", 3, 1))
LAYOUTS = [pytest.param(SINGLE, id="single"), pytest.param(NESTED, id="nested")]
EXACT = b'{ "id":"d0", "title" : "item 7", "text": "one two three four", "price" : 1.10000000000000000001 }'
MAPPING: dict[str, Any] = {"title": {"type": "text"}, "text": {"type": "text", "analyzer": "english"}}


def ingest(client: OpenSearch, index: str, folder: Path, profile: IndexProfile, bodies: Sequence[bytes]) -> Report:
    documents = [
        document_of(Entry(SourcePosition("memory", number), body), FIELDS) for number, body in enumerate(bodies)
    ]
    return run_ingest(
        DocumentsInMemory(documents),  # type: ignore[arg-type]
        Job(
            index=index,
            profile=profile,
            models=toy_models(),
            client=client,
            settings=IngestSettings(),
            state_folder=folder,
        ),
    )


def backfill(client: OpenSearch, index: str, folder: Path, models: Models | None = None) -> BackfillReport:
    done = run_backfill(
        Job(
            index,
            profile=SINGLE,
            models=models or toy_models(),
            client=client,
            settings=IngestSettings(),
            state_folder=folder,
        ),
    )
    client.indices.refresh(index=index)
    return done


def application_index(client: OpenSearch, engine: Engine, index: str, n: int, *, shards: int = 1) -> None:
    """An index as an application made it that never heard of the bridge."""
    settings = {"index.number_of_replicas": 0, "index.number_of_shards": shards}
    if not engine.is_elasticsearch:
        settings["index.knn"] = True
    client.indices.create(index=index, body={"settings": settings, "mappings": {"properties": MAPPING}})
    write_documents(client, index, n)


def write_documents(client: OpenSearch, index: str, n: int) -> None:
    lines: list[dict[str, Any]] = []
    for i in range(n):
        lines += [{"index": {"_id": f"d{i}"}}, {"title": f"title {i}", "text": f"text of {i}", "stock": i}]
    client.bulk(index=index, body="".join(json.dumps(line) + "\n" for line in lines), params={"refresh": "true"})


def source(client: OpenSearch, index: str, doc_id: str) -> dict[str, Any]:
    found: dict[str, Any] = client.get(index=index, id=doc_id)["_source"]
    return found


class ActingEncoder(CountingEncoder):
    """Lets something happen between reading and writing."""

    def __init__(self, act: Callable[[], None]) -> None:
        super().__init__()
        self._act = act

    def encode(self, texts: Sequence[str], role: Literal["query", "passage"] = "query") -> NDArray[np.float32]:
        self._act()
        return super().encode(texts, role)


def test_an_embedded_node_searches_text_and_vectors(
    client: OpenSearch, index_name: str, request: pytest.FixtureRequest
) -> None:
    distribution, _, version = request.node.callspec.params["engine"].partition("-")
    if distribution != "opensearch":
        pytest.skip("no embedded node")
    assert client.info()["version"]["number"] == version
    assert_searches(client, index_name)


@pytest.mark.feature("index with vectors: one per document, or nested passages")
@pytest.mark.parametrize("profile", LAYOUTS)
def test_an_index_that_is_made_says_what_it_holds(client: OpenSearch, index_name: str, profile: IndexProfile) -> None:
    indices.create(client, index_name, profile)
    kept = indices.check(client, index_name, indices.fitted(client, profile)).profile
    assert kept is not None
    assert (kept.text_fields, kept.passages, kept.dimension) == (profile.text_fields, profile.passages, 4)
    assert kept.vector_type in ("knn_vector", "dense_vector")


@pytest.mark.feature("ingest; documents kept byte for byte")
@pytest.mark.parametrize("profile", LAYOUTS)
def test_documents_are_written_as_they_came_beside_our_object(
    client: OpenSearch, index_name: str, tmp_path: Path, profile: IndexProfile
) -> None:
    indices.create(client, index_name, profile)
    report = ingest(client, index_name, tmp_path, profile, [EXACT, b'{"id": "d1", "title": "", "text": ""}'])
    assert (report.ledger.written, report.exit_code, report.without_text) == (2, 0, 1)
    stored = exchange(client, "GET", f"/{index_name}/_doc/d0").body
    assert EXACT.strip(b"{ }") in stored
    assert b'"stamp":' in stored


@pytest.mark.feature("a second ingest writes only what changed")
def test_a_second_run_writes_what_changed(client: OpenSearch, index_name: str, tmp_path: Path) -> None:
    indices.create(client, index_name, SINGLE)
    bodies = [b'{"id": "d%d", "title": "t", "text": "x"}' % i for i in range(30)]
    ingest(client, index_name, tmp_path, SINGLE, bodies)
    report = ingest(client, index_name, tmp_path, SINGLE, [b'{"id": "d0", "title": "new", "text": "x"}', *bodies[1:]])
    assert (report.ledger.written, report.ledger.unchanged) == (1, 29)


@pytest.mark.feature("plan: what enriching an index would mean")
def test_a_plan_foresees_the_work(client: OpenSearch, engine: Engine, index_name: str) -> None:
    application_index(client, engine, index_name, 40)
    found = planned(client, index_name, toy_models(), SINGLE, sample=20)
    assert (found.way, found.documents, found.stale, found.sampled) == ("in_place", 40, 40, 20)


@pytest.mark.feature("backfill in place while the application writes (sequence numbers)")
def test_backfill_loses_no_update_of_the_application(
    client: OpenSearch, engine: Engine, index_name: str, tmp_path: Path
) -> None:
    application_index(client, engine, index_name, 150, shards=2)
    wrote: list[str] = []

    def application() -> None:
        if not wrote:
            wrote.append("once")
            client.update(index=index_name, id="d5", body={"doc": {"text": "another text", "stock": 3}})
            client.delete(index=index_name, id="d6")

    toys = toy_models()
    models = Models(
        ActingEncoder(application), toys.encoder_reference, toys.token_spans, toys.generator, toys.generator_reference
    )
    done = backfill(client, index_name, tmp_path, models)
    assert (done.left, done.report.exit_code, done.read_again >= 1) == (0, 0, True)
    stored = source(client, index_name, "d5")
    assert (stored["text"], stored["stock"]) == ("another text", 3)
    assert stored["_neural"]["predicted_queries"][0] == "what is title"
    assert indices.count_enriched(client, index_name, SINGLE) == indices.count(client, index_name) == 149
    assert backfill(client, index_name, tmp_path).report.ledger.unchanged == 149


@pytest.mark.feature("backfill takes back what a document lost")
def test_what_a_document_lost_is_taken_from_our_object(
    client: OpenSearch, engine: Engine, index_name: str, tmp_path: Path
) -> None:
    application_index(client, engine, index_name, 3)
    backfill(client, index_name, tmp_path)
    client.update(index=index_name, id="d1", body={"doc": {"title": "", "text": ""}}, params={"refresh": "true"})
    backfill(client, index_name, tmp_path)
    assert source(client, index_name, "d1")["_neural"]["predicted_queries"] is None
    query = {"query": {"bool": {"filter": [{"exists": {"field": SINGLE.embedding_field}}]}}}
    assert client.count(index=index_name, body=query)["count"] == 2


@pytest.mark.feature("backfill beside: the application's index is only read (points in time, by shard)")
def test_a_companion_is_filled_and_the_applications_index_stays(
    client: OpenSearch, index_name: str, tmp_path: Path
) -> None:
    body = {"settings": {"number_of_replicas": 0, "number_of_shards": 3}, "mappings": {"properties": MAPPING}}
    client.indices.create(index=index_name, body=body)
    write_documents(client, index_name, 1100)
    before = client.indices.get(index=index_name), index_progress(client, index_name).shards
    done = run_beside(Job(index_name, SINGLE, toy_models(), client, IngestSettings(), tmp_path), "ours-")
    try:
        assert (done.report.ledger.written, done.report.complete) == (1100, True)
        assert indices.count_enriched(client, done.companion, SINGLE) == 1100
        assert (client.indices.get(index=index_name), index_progress(client, index_name).shards) == before
    finally:
        assert companion.remove(client, index_name, "ours-") == 1100


@pytest.mark.feature("undo: every trace of the bridge removed from the documents")
def test_undo_leaves_the_applications_documents(
    client: OpenSearch, engine: Engine, index_name: str, tmp_path: Path
) -> None:
    application_index(client, engine, index_name, 60)
    before = source(client, index_name, "d7")
    backfill(client, index_name, tmp_path)
    assert undo(client, index_name).documents == 60
    assert source(client, index_name, "d7") == before
    assert indices.count_enriched(client, index_name, SINGLE) == 0
    assert indices.look(client, index_name).profile is None
