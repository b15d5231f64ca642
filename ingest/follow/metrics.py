"""Followers' lag and ledgers for Prometheus."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from bridge.errors import UsageError
from ingest.follow.state import FollowStatus

_OUTCOMES = ("written", "unchanged", "superseded", "dropped_by_pipeline", "dead_lettered")


class _FollowCollector(Collector):
    """Reads the followers' status at each scrape, so that the lag grows while nothing happens."""

    def __init__(self, status: Callable[[], Sequence[FollowStatus]]) -> None:
        self._status = status

    def collect(self) -> Iterator[Metric]:
        lag = GaugeMetricFamily(
            "bridge_follow_lag_seconds",
            "What was written longer ago has these fields.",
            labels=["index", "generation", "fields"],
        )
        waiting = GaugeMetricFamily(
            "bridge_follow_waiting",
            "1 while it gives way to searches or the cluster is away.",
            labels=["index", "fields"],
        )
        documents = CounterMetricFamily(
            "bridge_ingest_documents",
            "Documents by how they ended, since the follower started.",
            labels=["index", "fields", "outcome"],
        )
        removed = CounterMetricFamily(
            "bridge_follow_removed_documents",
            "Documents that the application had deleted and that left the companion, since the follower started.",
            labels=["index", "fields"],
        )
        for status in self._status():
            lag.add_metric([status.index, str(status.generation), status.fields], status.lag_s)
            waiting.add_metric([status.index, status.fields], float(status.waiting is not None))
            for outcome in _OUTCOMES:
                documents.add_metric([status.index, status.fields, outcome], getattr(status.ledger, outcome))
            removed.add_metric([status.index, status.fields], status.removed)
        yield from (lag, waiting, documents, removed)


@contextmanager
def metrics_served(status: Callable[[], Sequence[FollowStatus]], *, host: str, port: int) -> Iterator[int]:
    """Serves `/metrics` for the length of the block; gives the port, a free one if `port` is 0.

    Raises:
        UsageError: the port is in use or forbidden.
    """
    registry = CollectorRegistry()
    registry.register(_FollowCollector(status))
    try:
        server, thread = start_http_server(port, addr=host, registry=registry)
    except OSError as error:
        raise UsageError(f"--metrics-port {port}: {error.strerror}; name another one") from error
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
