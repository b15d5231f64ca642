"""After enriching a real index: undo, and replaying dead letters."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opensearchpy import OpenSearch

from bridge.cluster import index as indices
from bridge.cluster.connection import connect
from bridge.cluster.removal import undo
from bridge.errors import IndexUnsuitable, UsageError
from bridge.node.node import EmbeddedNode
from bridge.settings import ClusterSettings, IngestSettings
from ingest.books.ledger import Report
from ingest.job import Job
from ingest.runs.ingest import run_ingest
from ingest.sources.documents import FieldChoice
from ingest.sources.files import FileDocuments
from ingest.sources.replay import DeadLetterDocuments, mark_replayed
from ingest.sources.source import Source
from ingest.stages.models import profile_for
from tests.ingest.application import TEXT_FIELDS, backfilled, old_application, source
from tests.ingest.toys import toy_models

FIELDS = FieldChoice(TEXT_FIELDS)
PROFILE = profile_for(toy_models(), TEXT_FIELDS)


@pytest.fixture
def client(node: EmbeddedNode) -> OpenSearch:
    return connect(ClusterSettings(url=node.url))


def backfill(client: OpenSearch, index: str, state_folder: Path) -> Report:
    return backfilled(client, index, toy_models(), PROFILE, state_folder)


def test_undo_removes_every_trace_that_can_be_removed(client: OpenSearch, fresh_index: str, tmp_path: Path) -> None:
    old_application(client, fresh_index, 150, _meta={"owner": "shop"})
    untouched = source(client, fresh_index, "d7")
    backfill(client, fresh_index, tmp_path)
    done = undo(client, fresh_index)
    assert done.documents == 150
    ours = ["_neural.code", "_neural.embedding", "_neural.predicted_queries", "_neural.stamp"]
    assert sorted(done.mapped_fields) == ours
    assert source(client, fresh_index, "d7") == untouched
    for field in done.mapped_fields:
        left = client.count(index=fresh_index, body={"query": {"exists": {"field": field}}})
        assert left["count"] == 0
    assert indices.look(client, fresh_index).mapping["_meta"] == {"owner": "shop"}
    with pytest.raises(IndexUnsuitable, match="nothing to undo"):
        undo(client, fresh_index)


def test_an_index_that_was_undone_can_be_enriched_again(client: OpenSearch, fresh_index: str, tmp_path: Path) -> None:
    old_application(client, fresh_index, 20)
    backfill(client, fresh_index, tmp_path)
    undo(client, fresh_index)
    assert backfill(client, fresh_index, tmp_path).ledger.written == 20


def load(client: OpenSearch, index: str, documents: Source[Any], state_folder: Path) -> Report:
    return run_ingest(
        documents,
        Job(
            index=index,
            profile=PROFILE,
            models=toy_models(),
            client=client,
            settings=IngestSettings(),
            state_folder=state_folder,
        ),
    )


@pytest.mark.case("I35")
def test_dead_letters_are_written_once_the_mapping_takes_them(
    client: OpenSearch, fresh_index: str, tmp_path: Path
) -> None:
    price: dict[str, Any] = {"price": {"type": "integer"}}
    indices.create(client, fresh_index, PROFILE, properties=price, dynamic="strict")
    corpus = tmp_path / "corpus.jsonl"
    lines = [f'{{"_id": "d{i}", "title": "t {i}", "price": {i}}}' for i in range(12)]
    lines += ['{"_id": "red", "title": "shoe", "price": 7, "colour": "red"}']
    corpus.write_text("\n".join(lines))
    first = load(client, fresh_index, FileDocuments([str(corpus)], FIELDS, max_doc_bytes=1000), tmp_path / "state")
    assert first.dead_letters is not None
    letters = Path(first.dead_letters)

    client.indices.put_mapping(index=fresh_index, body={"properties": {"colour": {"type": "keyword"}}})
    replay = DeadLetterDocuments(letters, FIELDS)
    report = load(client, fresh_index, replay, tmp_path / "replay")
    assert (report.ledger.written, report.exit_code) == (1, 0)
    assert source(client, fresh_index, "red")["colour"] == "red"
    again = load(client, fresh_index, replay, tmp_path / "replay")
    assert (again.ledger.written, again.ledger.unchanged) == (0, 1)
    assert mark_replayed(letters).read_text()
    assert indices.count(client, fresh_index) == 13


def test_letters_of_a_backfill_never_replace_whole_documents(
    client: OpenSearch, fresh_index: str, tmp_path: Path
) -> None:
    old_application(client, fresh_index, 5)
    client.update(index=fresh_index, id="d2", body={"doc": {"text": "choke"}}, params={"refresh": "true"})
    report = backfill(client, fresh_index, tmp_path)
    assert (report.ledger.written, report.ledger.dead_lettered) == (4, 1)
    assert report.dead_letters is not None
    with pytest.raises(UsageError, match="run `neural-bridge backfill"):
        DeadLetterDocuments(Path(report.dead_letters), FIELDS)


@pytest.fixture
def copy_name(client: OpenSearch, fresh_index: str) -> Iterator[str]:
    """The name of an index to copy into; removed afterwards."""
    yield f"{fresh_index}-copy"
    client.indices.delete(index=f"{fresh_index}-copy", params={"ignore_unavailable": "true"})


def test_backfill_and_ingest_make_the_same_of_the_same_documents(
    client: OpenSearch, fresh_index: str, copy_name: str, tmp_path: Path
) -> None:
    old_application(client, fresh_index, 80)
    corpus = tmp_path / "corpus.jsonl"
    lines = [{"_id": f"d{i}", "title": f"title {i}", "text": f"text of {i}", "stock": 0} for i in range(80)]
    corpus.write_text("".join(json.dumps(line) + "\n" for line in lines))
    indices.create(client, copy_name, PROFILE)
    load(client, copy_name, FileDocuments([str(corpus)], FIELDS, max_doc_bytes=1000), tmp_path / "load")
    backfill(client, fresh_index, tmp_path / "backfill")
    for i in range(80):
        one, other = (source(client, index, f"d{i}") for index in (fresh_index, copy_name))
        for ours in (one["_neural"], other["_neural"]):
            ours["stamp"] = ours["stamp"].split(".")[:2]
        assert one == other
