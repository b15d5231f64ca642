"""Reading an index ends at its end: never at a broken page, a lost cursor or a bad gateway."""

import json
import threading
from collections.abc import Callable, Iterator

import pytest

from bridge.cluster.connection import connect
from bridge.errors import AccessDenied, AnswerNotUnderstood
from bridge.records import Document, DocumentVersion
from bridge.settings import ClusterSettings
from ingest.sources.index import IndexDocuments
from ingest.writing.retry import RetryLimits
from tests.fake_bulk import FakeCluster, Recorded, Reply, error_body, fake_cluster, search_answer

N_DOCUMENTS = 300


@pytest.fixture
def cluster() -> Iterator[FakeCluster]:
    with fake_cluster() as cluster:
        cluster.settings = {"index": {"number_of_shards": "1", "uuid": "u"}}
        for i in range(N_DOCUMENTS):
            cluster.put(f"d{i}", json.dumps({"title": f"title {i}", "price": i}).encode())
        yield cluster


def source(cluster: FakeCluster) -> IndexDocuments:
    return IndexDocuments(
        connect(ClusterSettings(url=cluster.url)),
        "things",
        ["title"],
        text_fields=["title"],
        retry=RetryLimits(max_attempts=3, backoff_base_s=0.01),
        stopped=threading.Event(),
        page_documents=50,
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
