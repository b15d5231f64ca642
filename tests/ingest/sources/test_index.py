"""Reading an index ends at its end: never at a broken page, a lost cursor or a bad gateway."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from bridge.cluster.connection import connect
from bridge.errors import AccessDenied, AnswerNotUnderstood, IndexUnsuitable
from bridge.records import Document, DocumentVersion, SourcePosition
from bridge.settings import ClusterSettings
from ingest.sources.index import IndexDocuments
from ingest.sources.source import Unreadable
from ingest.writing.pace import RetryLimits
from tests.fake_bulk import FakeCluster, Recorded, Reply, error_body, fake_cluster, search_answer

N_DOCUMENTS = 300
QUICK = RetryLimits(max_attempts=3, backoff_base_s=0.01)


@pytest.fixture
def cluster() -> Iterator[FakeCluster]:
    with fake_cluster() as cluster:
        cluster.settings = {"index": {"number_of_shards": "1", "uuid": "u"}}
        for i in range(N_DOCUMENTS):
            cluster.put(f"d{i}", json.dumps({"title": f"title {i}", "price": i}).encode())
        yield cluster


def source(cluster: FakeCluster, *, goes_on: bool = False, retry: RetryLimits = QUICK) -> IndexDocuments:
    return IndexDocuments(
        connect(ClusterSettings(url=cluster.url)),
        "things",
        ["title"],
        text_fields=["title"],
        retry=retry,
        stopped=threading.Event(),
        page_documents=50,
        goes_on=goes_on,
    )


def read(cluster: FakeCluster) -> list[str]:
    return [item.doc_id for item in source(cluster).items() if isinstance(item, Document)]


def nth_page(n: int, reply: Callable[[], Reply]) -> Callable[[Recorded], Reply | None]:
    """Answers the n-th page in place of the cluster."""
    pages = 0

    def answer(request: Recorded) -> Reply | None:
        nonlocal pages
        pages += request.path == "/_search"
        return reply() if request.path == "/_search" and pages == n else None

    return answer


ALL = [f"d{i}" for i in range(N_DOCUMENTS)]


def test_every_document_comes_once_with_texts_and_version(cluster: FakeCluster) -> None:
    first, *others = source(cluster).items()
    assert isinstance(first, Document)
    assert (first.texts, first.version) == ({"title": "title 0"}, DocumentVersion(0, 1))
    assert [item.doc_id for item in others] == ALL[1:]
    assert source(cluster).total() == N_DOCUMENTS


@pytest.mark.case("I27")
@pytest.mark.parametrize(
    "broken",
    [
        pytest.param({"failed": 1}, id="failed-shard-and-no-hits"),
        pytest.param({"timed_out": True}, id="timed-out"),
    ],
)
def test_an_incomplete_page_is_asked_for_again(cluster: FakeCluster, broken: dict[str, bool]) -> None:
    page = json.dumps(search_answer([], pit="p", **broken)).encode()
    cluster.on_request = nth_page(2, lambda: Reply(200, page))
    assert read(cluster) == ALL
    cluster.on_request = lambda request: Reply(200, page) if request.path == "/_search" else None
    with pytest.raises(AnswerNotUnderstood, match="not the end of the index"):
        read(cluster)


@pytest.mark.case("I28")
@pytest.mark.parametrize(
    "reply",
    [
        pytest.param(Reply(502, b"bad gateway"), id="502"),
        pytest.param(Reply(drop=True), id="reset"),
        pytest.param(Reply(200, b'{"hits": {"hi'), id="truncated"),
    ],
)
def test_a_page_that_was_lost_on_the_way_is_not_skipped(cluster: FakeCluster, reply: Reply) -> None:
    cluster.on_request = nth_page(3, lambda: reply)
    assert read(cluster) == ALL


@pytest.mark.case("I26")
def test_a_lost_point_in_time_is_opened_again_behind_the_last_document(cluster: FakeCluster) -> None:
    def lose() -> Reply:
        cluster.lose_points_in_time()
        return Reply(404, error_body(404, "search_context_missing_exception"))

    cluster.on_request = nth_page(4, lose)
    assert read(cluster) == ALL


@pytest.mark.case("I26")
def test_a_document_that_changed_while_the_point_in_time_was_lost_is_read(cluster: FakeCluster) -> None:
    def change_and_lose() -> Reply:
        cluster.put("d250", b'{"title": "changed"}')
        cluster.lose_points_in_time()
        return Reply(404, error_body(404, "search_context_missing_exception"))

    cluster.on_request = nth_page(4, change_and_lose)
    ids = read(cluster)
    assert sorted(ids) == sorted(ALL)
    assert ids[-1] == "d250"


@pytest.mark.case("I26")
def test_a_point_in_time_that_ended_while_models_worked_is_opened_again(cluster: FakeCluster) -> None:
    patience_s = 0.2
    retry = RetryLimits(max_attempts=3, max_stall_s=patience_s, backoff_base_s=0.01)
    ids = []
    for item in source(cluster, retry=retry).items():
        assert isinstance(item, Document)
        ids.append(item.doc_id)
        if len(ids) == 1:
            time.sleep(2 * patience_s)
            cluster.lose_points_in_time()
    assert ids == ALL


@pytest.mark.case("I26")
def test_points_in_time_that_never_last_end_the_run_with_an_error(cluster: FakeCluster) -> None:
    lost = Reply(404, error_body(404, "search_context_missing_exception"))
    cluster.on_request = lambda request: lost if request.path == "/_search" else None
    with pytest.raises(AnswerNotUnderstood, match="lost again and again"):
        read(cluster)


def test_a_user_who_may_not_read_is_told_so(cluster: FakeCluster) -> None:
    denied = Reply(403, error_body(403, "security_exception"))
    cluster.on_request = lambda request: denied if request.path == "/_search" else None
    with pytest.raises(AccessDenied, match="permission to read"):
        read(cluster)


def test_points_in_time_are_closed(cluster: FakeCluster) -> None:
    read(cluster)
    assert [request.path for request in cluster.requests if request.method == "DELETE"] == ["/_search/point_in_time"]


def with_raw_sources(cluster: FakeCluster, **raw: bytes) -> None:
    """Answers as a cluster does that returns documents as they were written, byte for byte."""
    inner = cluster.answer

    def answer(request: Recorded) -> Reply:
        reply = inner(request)
        for doc_id, source in raw.items():
            marked = json.dumps({"title": f"raw {doc_id}"}).encode()
            reply = replace(reply, body=reply.body.replace(marked, source))
        return reply

    cluster.answer = answer  # type: ignore[method-assign]
    for doc_id in raw:
        cluster.put(doc_id, json.dumps({"title": f"raw {doc_id}"}).encode())


@pytest.mark.case("I39")
def test_half_a_surrogate_pair_is_read_as_a_replacement_character_and_the_rest_as_it_is(cluster: FakeCluster) -> None:
    with_raw_sources(cluster, cut=b'{"title": "Rain cape \\ud83d"}', raw=b'{"title": "\xed\xa0\xbd"}')
    found = {item.doc_id: item.texts["title"] for item in source(cluster).items() if isinstance(item, Document)}
    assert (found.pop("cut"), found.pop("raw")) == ("Rain cape \ufffd", "\ufffd")
    assert list(found) == ALL
    wanted = [Document("cut", b"", {}, SourcePosition("things", 0))]
    assert [item.texts for item in source(cluster).read_again(wanted) if isinstance(item, Document)] == [
        {"title": "Rain cape \ufffd"}
    ]


@pytest.mark.case("I39")
def test_a_document_that_nests_too_deeply_is_a_problem_of_its_own(cluster: FakeCluster) -> None:
    with_raw_sources(cluster, deep=b'{"title":' * 2000 + b"1" + b"}" * 2000)
    items = list(source(cluster).items())
    [problem] = [item for item in items if isinstance(item, Unreadable)]
    assert (problem.doc_id, problem.kind) == ("deep", "nested_too_deeply")
    assert [item.doc_id for item in items if isinstance(item, Document)] == ALL


@pytest.mark.case("I44")
def test_an_index_that_is_deleted_ends_the_reading_at_once(cluster: FakeCluster) -> None:
    items = source(cluster).items()
    next(items)
    gone = Reply(404, error_body(404, "index_not_found_exception", "no such index [things]"))
    cluster.on_request = lambda request: gone if request.path != "/" else None
    with pytest.raises(IndexUnsuitable, match="index things is gone"):
        list(items)
    assert len([request for request in cluster.requests if request.path == "/_search"]) == 2


@pytest.mark.case("I44")
def test_another_index_of_the_same_name_is_not_read_on(cluster: FakeCluster) -> None:
    items = source(cluster).items()
    next(items)
    cluster.lose_points_in_time()
    cluster.settings = {"index": {"number_of_shards": "1", "uuid": "another"}}
    with pytest.raises(IndexUnsuitable, match="index things is gone"):
        list(items)


@pytest.mark.case("I44")
def test_documents_of_a_deleted_index_are_not_taken_for_deleted_ones(cluster: FakeCluster) -> None:
    documents = source(cluster)
    error = {"_id": "d0", "error": {"type": "index_not_found_exception", "reason": "no such index [things]"}}
    gone = Reply(200, json.dumps({"docs": [error]}).encode())
    cluster.on_request = lambda request: gone if request.path.endswith("_mget") else None
    with pytest.raises(IndexUnsuitable, match="index things is gone"):
        list(documents.read_again([Document("d0", b"", {}, SourcePosition("things", 0))]))


def test_a_reader_that_goes_on_reads_only_what_changed_since(cluster: FakeCluster) -> None:
    reader = source(cluster, goes_on=True)
    assert [item.doc_id for item in reader.items() if isinstance(item, Document)] == ALL
    assert list(reader.items()) == []
    cluster.put("d7", b'{"title": "changed"}')
    (changed,) = reader.items()
    assert isinstance(changed, Document)
    assert (changed.doc_id, changed.texts) == ("d7", {"title": "changed"})


def test_documents_that_another_index_has_and_this_one_lacks_are_missing(cluster: FakeCluster) -> None:
    of_another = [Document(doc_id, b"{}", {}, SourcePosition("other", 1)) for doc_id in ("d1", "gone", "d299", "d300")]
    assert [document.doc_id for document in source(cluster).missing(of_another)] == ["gone", "d300"]
    cluster.on_request = lambda request: Reply(200, b'{"docs": []}') if request.path.endswith("_mget") else None
    with pytest.raises(AnswerNotUnderstood, match="other documents than were requested"):
        list(source(cluster).missing(of_another))
