"""Waiting until an index has its copies again."""

import json
from threading import Event

import pytest

from bridge.cluster.bulk_load import wait_for_copies
from bridge.cluster.connection import connect
from bridge.settings import ClusterSettings
from tests.fake_bulk import Recorded, Reply, fake_cluster


@pytest.mark.parametrize("stopped_at", [None, 2])
def test_a_copy_that_takes_long_is_asked_for_again_until_it_is_there_or_a_signal_comes(stopped_at: int | None) -> None:
    stopped = Event()
    with fake_cluster() as cluster:

        def answer(request: Recorded) -> Reply | None:
            if not request.path.startswith("/_cluster/health/copied?"):
                return None
            asked = sum("/_cluster/health" in each.path for each in cluster.requests)
            if asked == stopped_at:
                stopped.set()
            late = asked < 4
            return Reply(408 if late else 200, json.dumps({"timed_out": late}).encode())

        cluster.on_request = answer
        wait_for_copies(connect(ClusterSettings(url=cluster.url)), "copied", stopped)
        assert sum("/_cluster/health" in each.path for each in cluster.requests) == (stopped_at or 4)
