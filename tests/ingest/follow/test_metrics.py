"""Prometheus reads of each follower how far behind it is, whether it waits, and how its documents ended."""

import socket

import pytest
import requests

from bridge.errors import UsageError
from ingest.books.ledger import Ledger
from ingest.follow.metrics import metrics_served
from ingest.follow.state import FollowStatus


def test_each_follower_is_read_at_each_scrape() -> None:
    ledger = Ledger()
    statuses = [
        FollowStatus("things", 2, "vectors", 1.5, ledger, removed=3),
        FollowStatus("things", 2, "predicted_queries", 90.0, Ledger(), waiting="the cluster: away"),
    ]
    with metrics_served(lambda: statuses, host="127.0.0.1", port=0) as port:
        ledger.add("written")
        exposed = requests.get(f"http://127.0.0.1:{port}/metrics", timeout=30).text
    for line in (
        'bridge_follow_removed_documents_total{fields="vectors",index="things"} 3.0',
        'bridge_follow_lag_seconds{fields="vectors",generation="2",index="things"} 1.5',
        'bridge_follow_waiting{fields="vectors",index="things"} 0.0',
        'bridge_follow_waiting{fields="predicted_queries",index="things"} 1.0',
        'bridge_ingest_documents_total{fields="vectors",index="things",outcome="written"} 1.0',
        'bridge_ingest_documents_total{fields="vectors",index="things",outcome="dead_lettered"} 0.0',
    ):
        assert line in exposed


def test_a_port_in_use_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        served = metrics_served(list, host="127.0.0.1", port=port)
        with pytest.raises(UsageError, match=f"--metrics-port {port}"), served:
            pass
