"""An index in splits: how many there are, and that none ends early without saying so."""

import json
import pickle
from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.records import Document, SourcePosition
from bridge.settings import ClusterSettings
from ingest.ray.cluster_address import ClusterAddress
from ingest.ray.index_splits import Changed, Slice, SplitIndex, changed, slices
from ingest.sources.index import PointInTimeLost
from ingest.writing.pace import RetryLimits
from tests.fake_bulk import FakeCluster, Recorded, fake_cluster

N = 1_200
MOST_SLICES_OF_A_POINT = 1024
"""What OpenSearch and Elasticsearch allow unless an index's settings say otherwise."""


@given(n_documents=st.integers(0, 10**10), n_shards=st.integers(1, MOST_SLICES_OF_A_POINT))
def test_every_shard_has_as_many_slices_and_no_cluster_refuses_them(n_documents: int, n_shards: int) -> None:
    found = slices(n_documents, n_shards)
    assert [each.number for each in found] == list(range(len(found)))
    assert {each.n_slices for each in found} == {len(found)}
    assert len(found) <= MOST_SLICES_OF_A_POINT
    # A cluster gives slice i to shard i modulo the number of shards.
    assert len(set(Counter(each.number % n_shards for each in found).values())) == 1


def test_slices_hold_about_as_many_documents_as_is_asked_for() -> None:
    assert len(slices(95_000, 5, slice_documents=10_000)) == 10
    assert slices(0, 1) == slices(10, 1) == [Slice(0, 1)]


def test_what_changed_is_read_again_in_splits_of_a_batch() -> None:
    documents = [Document(f"d{i}", b"", {}, SourcePosition("index", i)) for i in range(130)]
    splits = changed(documents)
    assert [len(split.documents) for split in splits] == [64, 64, 2]
    assert [document for split in splits for document in split.documents] == documents
    assert changed([]) == []


@pytest.fixture
def cluster() -> Iterator[FakeCluster]:
    with fake_cluster() as cluster:
        cluster.settings = {"index": {"number_of_shards": "1", "uuid": "u"}}
        for i in range(N):
            cluster.put(f"d{i}", json.dumps({"title": f"title {i}"}).encode())
        yield cluster


def index_of(cluster: FakeCluster, pit: str) -> SplitIndex:
    """As another machine gets it."""
    retry = RetryLimits(max_attempts=3, backoff_base_s=0.01)
    address = ClusterAddress.of(ClusterSettings(url=cluster.url), None)
    whole = SplitIndex(address, "things", ("title",), ("title",), retry, pit, [Slice(0, 1)])
    travelled: SplitIndex = pickle.loads(pickle.dumps(whole))  # noqa: S301 our own bytes
    return travelled


def opened(cluster: FakeCluster) -> str:
    reply = cluster.answer(Recorded("POST", "/things/_search/point_in_time", b"", 0.0))
    return str(json.loads(reply.body)["pit_id"])


def test_a_slice_is_the_same_each_time_whatever_is_written_meanwhile(cluster: FakeCluster) -> None:
    source = index_of(cluster, opened(cluster))
    first = list(source.read(Slice(0, 1)))
    cluster.put("d0", b'{"title": "changed"}')
    cluster.put("later", b'{"title": "new"}')
    assert len(first) == N
    assert list(source.read(Slice(0, 1))) == first


def test_a_slice_that_loses_its_point_in_time_does_not_pass_for_whole(cluster: FakeCluster) -> None:
    items = index_of(cluster, opened(cluster)).read(Slice(0, 1))
    next(items)
    cluster.lose_points_in_time()
    with pytest.raises(PointInTimeLost, match="a point in time on things is lost"):
        list(items)


def test_what_is_read_again_is_as_it_is_now_and_what_is_gone_is_left_out(cluster: FakeCluster) -> None:
    source = index_of(cluster, "")
    cluster.put("d7", b'{"title": "changed"}')
    wanted = tuple(Document(doc_id, b"", {}, SourcePosition("things", 0)) for doc_id in ("d7", "gone", "d9"))
    found = [(item.doc_id, item.texts) for item in source.read(Changed(wanted)) if isinstance(item, Document)]
    assert found == [("d7", {"title": "changed"}), ("d9", {"title": "title 9"})]
