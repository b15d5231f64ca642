"""A run's stages: lots of items one after another, documents that come again, and what is written of them."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from bridge.cluster.connection import connect
from bridge.cluster.dialects import OpenSearchDialect
from bridge.cluster.schema import new_index
from bridge.errors import AccessDenied
from bridge.records import Document, EnrichedDocument, SourcePosition
from bridge.settings import ClusterSettings, IngestSettings
from ingest.books.books import Books
from ingest.job import Job
from ingest.runs.run import LOCAL, Run, action_of, stamp_of
from ingest.sources.source import DocumentsInMemory
from ingest.stages.models import profile_for
from ingest.stages.stamps import recipe
from tests.fake_bulk import FakeCluster, Reply, error_body, fake_cluster, refusal
from tests.ingest.toys import toy_models

MODELS = toy_models()
PROFILE = profile_for(MODELS, ["title"])


@pytest.fixture
def cluster() -> Iterator[FakeCluster]:
    with fake_cluster() as running:
        running.mapping = new_index(PROFILE, OpenSearchDialect((3, 6, 0)))["mappings"]
        running.settings = {"index": {"knn": "true", "uuid": "u1"}}
        yield running


@pytest.fixture
def job(cluster: FakeCluster, tmp_path: Path) -> Job:
    settings = IngestSettings(max_stall_s=5.0, bulk_documents=1)
    return Job("things", PROFILE, MODELS, connect(ClusterSettings(url=cluster.url)), settings, tmp_path / "state")


def document(doc_id: str, title: str = "title", *, routing: str | None = None) -> Document:
    body = json.dumps({"title": title}).encode()
    return Document(doc_id, body, {"title": title}, SourcePosition("memory", 1), routing)


def books_of(job: Job) -> Books:
    source = DocumentsInMemory([])
    return Books(job, source, index_identity="u1", recipe=recipe(job.profile, job.settings))


def test_a_run_takes_several_lots_and_counts_them_together(cluster: FakeCluster, job: Job) -> None:
    with books_of(job) as books, LOCAL.start(job, books, in_place=False) as run:
        for lot in (["a", "b"], [], ["c"]):
            run.send(DocumentsInMemory([document(doc_id) for doc_id in lot]), is_empty=True)
        assert (books.ledger.read, books.ledger.written) == (3, 3)
    assert sorted(cluster.documents) == ["a", "b", "c"]


def test_a_document_that_comes_again_waits_for_its_earlier_version(cluster: FakeCluster, job: Job) -> None:
    """One id under two routings may be one document; the earlier version is refused once, and sent again."""
    busy = refusal(429, "es_rejected_execution_exception")
    cluster.on_item = lambda _, times: busy if times == 1 else None
    with books_of(job) as books:
        run = Run(job, books, in_place=False)
        run.send_items([document("twin", "first", routing="x"), document("twin", "second", routing="y")], changed=None)
    assert cluster.sent_ids() == [["twin"]] * 3
    assert json.loads(cluster.documents["twin"])["title"] == "second"


def test_only_documents_that_changed_are_enriched(cluster: FakeCluster, job: Job) -> None:
    items = [document(doc_id) for doc_id in ("a", "b", "c")]
    with books_of(job) as books:
        run = Run(job, books, in_place=False)
        run.send_items(items, changed=lambda group: [each for each in group if each.doc_id == "b"])
        assert (books.ledger.written, books.ledger.unchanged) == (1, 2)
    assert list(cluster.documents) == ["b"]


def test_a_refused_request_ends_the_run_and_stops_the_others(cluster: FakeCluster, job: Job) -> None:
    cluster.on_bulk = lambda _n, _actions: Reply(403, error_body(403, "security_exception"))
    with books_of(job) as books, pytest.raises(AccessDenied):
        Run(job, books, in_place=False).send_items([document("a"), document("b")], changed=None)
    assert job.stopped.is_set()
    assert cluster.documents == {}


@pytest.mark.parametrize(("in_place", "op"), [(True, "update"), (False, "index")])
def test_in_place_only_our_object_is_written(in_place: bool, op: str) -> None:
    written = document("a", "its own")
    stamp = stamp_of(PROFILE, "made-by", in_place=in_place)
    action = action_of(PROFILE, in_place=in_place)(
        EnrichedDocument(written, [], [], np.zeros((0, 4), np.float32), stamp(written))
    )
    assert json.loads(action.lines.splitlines()[0]).keys() == {op}
    assert (b"its own" in action.lines) is not in_place


def test_the_stamp_of_a_document_that_is_enriched_in_place_depends_on_its_texts_only() -> None:
    one = document("a", "text")
    priced = Document("a", b'{"title":"text","price":1}', one.texts, one.position)
    for in_place in (True, False):
        stamp = stamp_of(PROFILE, "made-by", in_place=in_place)
        assert (stamp(one) == stamp(priced)) is in_place
