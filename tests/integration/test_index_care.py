"""Before and after enriching a real index: plan, undo, and replaying dead letters."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opensearchpy import OpenSearch

from bridge.cluster import index as indices
from bridge.cluster.connection import connect, exchange
from bridge.cluster.removal import undo
from bridge.cluster.schema import field_mapping
from bridge.errors import IndexUnsuitable, UsageError
from bridge.node.node import EmbeddedNode
from bridge.settings import ClusterSettings, IngestSettings
from ingest.books.ledger import Report
from ingest.job import Job
from ingest.runs.backfill import run_backfill
from ingest.runs.copy import run_copy
from ingest.runs.ingest import run_ingest
from ingest.runs.plan import Plan, plan
from ingest.sources.documents import FieldChoice
from ingest.sources.files import FileDocuments
from ingest.sources.replay import DeadLetterDocuments, mark_replayed
from ingest.sources.source import Source
from ingest.stages.models import profile_for
from tests.ingest.toys import toy_models
from tests.integration.test_backfill import TEXT_FIELDS, old_application, source

FIELDS = FieldChoice(TEXT_FIELDS)
PROFILE = profile_for(toy_models(), TEXT_FIELDS)


@pytest.fixture
def client(node: EmbeddedNode) -> OpenSearch:
    return connect(ClusterSettings(url=node.url))


def backfill(client: OpenSearch, index: str, state_folder: Path) -> Report:
    report = run_backfill(
        Job(
            index,
            profile=PROFILE,
            models=toy_models(),
            client=client,
            settings=IngestSettings(),
            state_folder=state_folder,
        ),
    ).report
    client.indices.refresh(index=index)
    return report


def planned(client: OpenSearch, index: str) -> Plan:
    return plan(index, profile=PROFILE, models=toy_models(), client=client, settings=IngestSettings(), sample=50)


def test_plan_foresees_work_and_growth_and_changes_nothing(client: OpenSearch, fresh_index: str) -> None:
    old_application(client, fresh_index, 200)
    before = indices.look(client, fresh_index)
    found = planned(client, fresh_index)
    assert (found.way, found.documents, found.stale, found.sampled, found.passages) == ("in_place", 200, 200, 50, 200)
    assert found.hours > 0
    assert found.vector_memory_bytes == round(200 * 1.1 * (4 * 4 + 8 * 16))
    assert list(found.mapping) == ["_neural"]
    assert indices.look(client, fresh_index) == before


def test_plan_of_an_enriched_index_finds_nothing_to_do(client: OpenSearch, fresh_index: str, tmp_path: Path) -> None:
    old_application(client, fresh_index, 60)
    backfill(client, fresh_index, tmp_path)
    found = planned(client, fresh_index)
    assert (found.stale, found.passages, found.mapping) == (0, 0, {})


def test_plan_proposes_a_copy_where_in_place_would_fail(client: OpenSearch, fresh_index: str) -> None:
    client.indices.create(index=fresh_index, body={"mappings": {"properties": {"title": {"type": "text"}}}})
    found = planned(client, fresh_index)
    assert found.way == "copy"
    assert len(found.obstacles) == 2


def test_undo_removes_every_trace_that_can_be_removed(client: OpenSearch, fresh_index: str, tmp_path: Path) -> None:
    old_application(client, fresh_index, 150, _meta={"owner": "shop"})
    untouched = source(client, fresh_index, "d7")
    backfill(client, fresh_index, tmp_path)
    done = undo(client, fresh_index)
    assert done.documents == 150
    assert sorted(done.mapped_fields) == ["_neural.embedding", "_neural.predicted_queries", "_neural.stamp"]
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


@pytest.mark.case("I25")
def test_a_copy_is_exact_enriched_and_takes_over_the_alias(
    client: OpenSearch, fresh_index: str, copy_name: str, tmp_path: Path
) -> None:
    analysis = {"analyzer": {"shout": {"tokenizer": "whitespace", "filter": ["uppercase"]}}}
    mapping = {"title": {"type": "text", "analyzer": "shout"}, "price": {"type": "double"}}
    body = {"settings": {"index.analysis": analysis}, "mappings": {"properties": mapping, "dynamic": "strict"}}
    client.indices.create(index=fresh_index, body=body)
    alias = f"{fresh_index}-alias"
    client.indices.put_alias(index=fresh_index, name=alias)
    for i in range(70):
        exact = b'{ "title" : "item %d", "price" : 1.10000000000000000001 }' % i
        exchange(client, "PUT", f"/{fresh_index}/_doc/d{i}", body=exact)
    client.indices.refresh(index=fresh_index)
    profile = profile_for(toy_models(), ["title"])
    done = run_copy(
        fresh_index,
        Job(
            copy_name,
            profile=profile,
            models=toy_models(),
            client=client,
            settings=IngestSettings(),
            state_folder=tmp_path,
        ),
    )
    assert (done.settled, done.passes, done.old_documents, done.new_documents) == (True, 2, 70, 70)
    raw = exchange(client, "GET", f"/{copy_name}/_doc/d7").body
    assert b'{"title" : "item 7", "price" : 1.10000000000000000001,"_neural":{"stamp":' in raw
    predicted = field_mapping(indices.look(client, copy_name).mapping, "_neural.predicted_queries")
    assert predicted == {"type": "text", "analyzer": "shout"}
    indices.move_alias(client, alias, old=fresh_index, new=copy_name)
    assert indices.look(client, alias).name == copy_name
    with pytest.raises(IndexUnsuitable, match="no alias"):
        indices.move_alias(client, alias, old=fresh_index, new=copy_name)


@pytest.mark.case("I25")
def test_an_index_that_does_not_keep_its_documents_is_not_copied(
    client: OpenSearch, fresh_index: str, copy_name: str, tmp_path: Path
) -> None:
    client.indices.create(index=fresh_index, body={"mappings": {"_source": {"excludes": ["secret"]}}})
    with pytest.raises(IndexUnsuitable, match=r"does not keep its documents whole.*secret"):
        run_copy(
            fresh_index,
            Job(
                copy_name,
                profile=PROFILE,
                models=toy_models(),
                client=client,
                settings=IngestSettings(),
                state_folder=tmp_path,
            ),
        )
    assert not client.indices.exists(index=copy_name)


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
