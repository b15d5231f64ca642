"""A run holds back when it is told to, and goes on as soon as it may."""

import statistics
import threading
import time
from collections.abc import Iterator

import pytest
from opensearchpy import OpenSearch
from structlog.testing import capture_logs

from bridge.cluster.connection import connect
from bridge.cluster.shard_progress import IndexProgress
from bridge.errors import AccessDenied, ClusterBlocked, ClusterUnreachable
from bridge.records import Document, SourcePosition
from bridge.settings import ClusterSettings
from ingest.stages.batches import Batch
from ingest.writing.pace import Backoff, ClusterHealthCheck, RateLimit, RetryLimits, RunStopped, SearchLoad, retrying
from tests.fake_bulk import FakeCluster, Reply, fake_cluster


def batches(n: int, size: int) -> list[Batch[Document]]:
    document = Document("d", b"{}", {}, SourcePosition("memory", 1))
    return [Batch([document] * size, []) for _ in range(n)]


def rate_limit(*troubles: str | None, max_documents_per_s: float = 0.0, max_stall_s: float = 60.0) -> RateLimit:
    """One that checks before each batch; it meets these troubles one after another, then none."""
    next_one = iter(troubles)
    return RateLimit(
        lambda: next(next_one, None),
        max_documents_per_s=max_documents_per_s,
        max_stall_s=max_stall_s,
        stopped=threading.Event(),
        check_every_s=0.0,
    )


def test_no_more_documents_a_second_go_on_than_are_allowed() -> None:
    began = time.monotonic()
    assert len(list(rate_limit(max_documents_per_s=500).limited(batches(5, size=50)))) == 5
    # The first lot goes at once, the others each after the tenth of a second that the one before is worth.
    assert time.monotonic() - began >= 0.4


def test_lots_without_work_are_not_held_back() -> None:
    began = time.monotonic()
    list(rate_limit(max_documents_per_s=0.1).limited(batches(100, size=0)))
    assert time.monotonic() - began < 5


def test_a_run_waits_while_the_cluster_is_in_trouble() -> None:
    with capture_logs() as logs:
        assert len(list(rate_limit("a shard is lost", "a shard is lost").limited(batches(1, size=1)))) == 1
    assert [(entry["event"], entry["reason"]) for entry in logs] == [("run_waits", "a shard is lost")] * 2


def test_trouble_without_an_end_ends_the_run() -> None:
    with pytest.raises(ClusterBlocked, match=r"a shard is lost, for longer than ingest\.max_stall_s"):
        list(rate_limit(*["a shard is lost"] * 5, max_stall_s=0.0).limited(batches(1, size=1)))


@pytest.fixture
def cluster() -> Iterator[FakeCluster]:
    with fake_cluster() as running:
        yield running


@pytest.fixture
def client(cluster: FakeCluster) -> OpenSearch:
    return connect(ClusterSettings(url=cluster.url))


@pytest.mark.parametrize(
    ("reply", "trouble"),
    [
        pytest.param(Reply(200, b'{"status": "red"}'), "lost a shard", id="red"),
        pytest.param(Reply(200, b'{"status": "yellow"}'), None, id="yellow"),
        pytest.param(Reply(403, b""), None, id="not-allowed-to-know"),
        pytest.param(Reply(200, b"<html>"), None, id="no-answer-of-a-cluster"),
        pytest.param(Reply(drop=True), None, id="connection-lost"),
    ],
)
def test_a_lost_shard_is_trouble(cluster: FakeCluster, client: OpenSearch, reply: Reply, trouble: str | None) -> None:
    cluster.on_request = lambda request: reply if "/_cluster/health/" in request.path else None
    found = ClusterHealthCheck(client, "things", max_search_ms=0)()
    assert (trouble in found) if found and trouble else (found is trouble)


def test_slow_searches_are_trouble_from_one_check_to_the_next(cluster: FakeCluster, client: OpenSearch) -> None:
    searched = [(10, 100), (20, 2100), (20, 2100)]

    def stats(request: object) -> Reply | None:
        if "/_stats/" not in getattr(request, "path", ""):
            return None
        n, ms = searched.pop(0)
        total = b'{"search": {"query_total": %d, "query_time_in_millis": %d}}' % (n, ms)
        return Reply(200, b'{"indices": {"things": {"uuid": "u", "total": %s, "shards": {}}}}' % total)

    cluster.on_request = stats
    check = ClusterHealthCheck(client, "things", max_search_ms=50)
    checks = [check() for _ in range(3)]
    assert checks[0] is checks[2] is None
    assert checks[1] is not None
    assert "200 ms" in checks[1]


def counted(searches: int, search_ms: int) -> IndexProgress:
    return IndexProgress("things", "u1", {}, searches, search_ms)


@pytest.mark.parametrize(
    ("later", "reason"),
    [
        pytest.param(counted(110, 2500), "150 ms per shard", id="slow"),
        pytest.param(counted(110, 2000), None, id="just-so"),
        pytest.param(counted(100, 1000), None, id="no-search"),
        pytest.param(counted(3, 9000), None, id="nodes-restarted"),
    ],
)
def test_searches_since_the_last_look_count(later: IndexProgress, reason: str | None) -> None:
    load = SearchLoad(100)
    assert load.too_high(counted(100, 1000)) is None, "nothing to compare with yet"
    found = load.too_high(later)
    assert found is None if reason is None else reason in (found or "")


def test_without_a_limit_nothing_is_too_slow() -> None:
    load = SearchLoad(0)
    load.too_high(counted(0, 0))
    assert load.too_high(counted(1, 10**9)) is None


FAST = RetryLimits(max_stall_s=5.0, backoff_base_s=0.001, backoff_cap_s=0.001)


class Waits(threading.Event):
    """Keeps how long it was asked to wait, and does not."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.seconds.append(timeout or 0.0)
        return False


@pytest.mark.case("I1")
def test_waits_grow_and_are_jittered() -> None:
    runs = []
    for _ in range(300):
        waits = Waits()
        backoff = Backoff(RetryLimits(max_attempts=6, backoff_base_s=1.0, backoff_cap_s=4.0), waits)
        while backoff.wait():
            pass
        runs.append(waits.seconds)
    columns = list(zip(*runs, strict=True))
    means = [statistics.mean(column) for column in columns]
    # Evenly spread between nothing and 1, 2, 4, 4 and 4 seconds.
    assert means == pytest.approx([0.5, 1, 2, 2, 2], rel=0.25)
    assert all(min(column) < mean / 4 for column, mean in zip(columns, means, strict=True))


def test_attempts_end_at_their_number_unless_only_time_counts() -> None:
    limits = RetryLimits(max_attempts=2)
    counted, timed = Backoff(limits, Waits()), Backoff(limits, Waits())
    assert [counted.wait() for _ in range(2)] == [True, False]
    assert [timed.wait(count=False) for _ in range(3)] == [True, True, True]


def test_a_stopped_run_waits_no_longer() -> None:
    stopped = threading.Event()
    stopped.set()
    with pytest.raises(RunStopped):
        Backoff(RetryLimits(), stopped).wait()


def test_a_question_is_asked_again_until_the_cluster_answers() -> None:
    failures = [ClusterUnreachable("away"), ClusterUnreachable("away")]

    def ask(number: int) -> int:
        if failures:
            raise failures.pop()
        return number + 7

    assert retrying(ask, FAST, threading.Event())(1) == 8


def test_an_answer_that_no_time_changes_is_not_asked_for_again() -> None:
    asked: list[int] = []

    def ask(number: int) -> int:
        asked.append(number)
        raise AccessDenied("no")

    with pytest.raises(AccessDenied):
        retrying(ask, FAST, threading.Event())(1)
    assert asked == [1]
