"""What `_stats` says of an index's changes."""

import json
from typing import Any

import pytest

from bridge.cluster.connection import connect
from bridge.cluster.shard_progress import IndexProgress, ShardProgress, index_progress
from bridge.errors import AccessDenied, AnswerNotUnderstood, IndexUnsuitable
from bridge.settings import ClusterSettings
from tests.fake_bulk import Reply, fake_cluster


def shard(last: int, checkpoint: int, *, primary: bool = True) -> dict[str, Any]:
    return {"routing": {"primary": primary}, "seq_no": {"max_seq_no": last, "global_checkpoint": checkpoint}}


STATS = {
    "uuid": "u1",
    "total": {"search": {"query_total": 10, "query_time_in_millis": 25}},
    "shards": {"0": [shard(7, 6), shard(5, 5, primary=False)], "1": [{"routing": {"primary": True}}]},
}


def progress(reply: Reply) -> IndexProgress:
    with fake_cluster() as cluster:
        cluster.on_request = lambda _: reply
        with connect(ClusterSettings(url=cluster.url)) as client:
            return index_progress(client, "shop")


def test_primaries_count_and_a_shard_without_numbers_is_left_out() -> None:
    found = progress(Reply(200, json.dumps({"indices": {"shop-1": STATS}}).encode()))
    assert found == IndexProgress("shop-1", "u1", {0: ShardProgress(7, 6)}, 10, 25)


@pytest.mark.parametrize(
    ("reply", "error", "message"),
    [
        (Reply(403), AccessDenied, "indices:monitor/stats"),
        (Reply(404), IndexUnsuitable, "does not exist or is closed"),
        (Reply(200, b'{"indices": {}}'), IndexUnsuitable, "names 0 indices"),
        (Reply(200, b'{"indices": {"a": 1}}'), AnswerNotUnderstood, "no statistics"),
    ],
)
def test_an_answer_without_statistics_is_an_error_of_its_kind(
    reply: Reply, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        progress(reply)
