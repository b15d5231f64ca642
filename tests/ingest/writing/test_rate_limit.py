"""A run holds back when it is told to, and goes on as soon as it may."""

import threading
import time
from collections.abc import Iterator

import pytest
from opensearchpy import OpenSearch

from bridge.cluster.connection import connect
from bridge.errors import ClusterBlocked
from bridge.records import Document, SourcePosition
from bridge.settings import ClusterSettings
from ingest.stages.batches import Batch
from ingest.writing.rate_limit import ClusterWorries, Pace
from tests.fake_bulk import FakeCluster, Reply, fake_cluster


def batches(n: int, size: int) -> list[Batch[Document]]:
    document = Document("d", b"{}", {}, SourcePosition("memory", 1))
    return [Batch([document] * size, []) for _ in range(n)]


def pace(*worries: str | None, max_documents_per_s: float = 0.0, max_stall_s: float = 60.0) -> Pace:
    """One that looks before each batch; it is told one worry after another, then none."""
    told = iter(worries)
    return Pace(
        lambda: next(told, None),
        max_documents_per_s=max_documents_per_s,
        max_stall_s=max_stall_s,
        stopped=threading.Event(),
        look_every_s=0.0,
    )


def test_no_more_documents_a_second_go_on_than_are_allowed() -> None:
    began = time.monotonic()
    assert len(list(pace(max_documents_per_s=500).held(batches(5, size=50)))) == 5
    # The first lot goes at once, the others each after the tenth of a second that the one before is worth.
    assert time.monotonic() - began >= 0.4


def test_lots_without_work_are_not_held_back() -> None:
    began = time.monotonic()
    list(pace(max_documents_per_s=0.1).held(batches(100, size=0)))
    assert time.monotonic() - began < 5


def test_a_run_waits_while_the_cluster_has_worries(caplog: pytest.LogCaptureFixture) -> None:
    assert len(list(pace("a shard is lost", "a shard is lost").held(batches(1, size=1)))) == 1
    assert [record.message for record in caplog.records] == ["the run waits: a shard is lost"] * 2


def test_worries_without_an_end_end_the_run() -> None:
    with pytest.raises(ClusterBlocked, match=r"a shard is lost, for longer than ingest\.max_stall_s"):
        list(pace(*["a shard is lost"] * 5, max_stall_s=0.0).held(batches(1, size=1)))


@pytest.fixture
def cluster() -> Iterator[FakeCluster]:
    with fake_cluster() as running:
        yield running


@pytest.fixture
def client(cluster: FakeCluster) -> OpenSearch:
    return connect(ClusterSettings(url=cluster.url))


@pytest.mark.parametrize(
    ("reply", "worry"),
    [
        pytest.param(Reply(200, b'{"status": "red"}'), "lost a shard", id="red"),
        pytest.param(Reply(200, b'{"status": "yellow"}'), None, id="yellow"),
        pytest.param(Reply(403, b""), None, id="not-allowed-to-know"),
        pytest.param(Reply(200, b"<html>"), None, id="no-answer-of-a-cluster"),
        pytest.param(Reply(drop=True), None, id="connection-lost"),
    ],
)
def test_a_lost_shard_is_a_worry(cluster: FakeCluster, client: OpenSearch, reply: Reply, worry: str | None) -> None:
    cluster.on_request = lambda request: reply if "/_cluster/health/" in request.path else None
    found = ClusterWorries(client, "things", max_search_ms=0)()
    assert (worry in found) if found and worry else (found is worry)


def test_slow_searches_are_a_worry_from_one_look_to_the_next(cluster: FakeCluster, client: OpenSearch) -> None:
    searched = [(10, 100), (20, 2100), (20, 2100)]

    def stats(request: object) -> Reply | None:
        if "/_stats/" not in getattr(request, "path", ""):
            return None
        n, ms = searched.pop(0)
        total = b'{"search": {"query_total": %d, "query_time_in_millis": %d}}' % (n, ms)
        return Reply(200, b'{"indices": {"things": {"uuid": "u", "total": %s, "shards": {}}}}' % total)

    cluster.on_request = stats
    worries = ClusterWorries(client, "things", max_search_ms=50)
    looks = [worries() for _ in range(3)]
    assert looks[0] is looks[2] is None
    assert looks[1] is not None
    assert "200 ms" in looks[1]
