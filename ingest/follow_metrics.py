"""A follower's lag and books for Prometheus."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from bridge.errors import UsageError
from ingest.follow import FollowStatus

_OUTCOMES = ("written", "unchanged", "superseded", "dropped_by_pipeline", "dead_lettered")


class _FollowCollector(Collector):
    """Asks the follower when it is asked itself, so that the lag grows while nothing goes on."""

    def __init__(self, status: Callable[[], FollowStatus]) -> None:
        self._status = status

    def collect(self) -> Iterator[Metric]:
        status = self._status()
        lag = GaugeMetricFamily(
            "bridge_follow_lag_seconds", "What was written longer ago is enriched.", labels=["index", "generation"]
        )
        lag.add_metric([status.index, str(status.generation)], status.lag_s)
        yield lag
        waiting = GaugeMetricFamily("bridge_follow_waiting", "1 while it gives way to searches or the cluster is away.")
        waiting.add_metric([], float(status.waiting is not None))
        yield waiting
        documents = CounterMetricFamily(
            "bridge_ingest_documents", "Documents by how they ended, since the follower started.", labels=["outcome"]
        )
        for outcome in _OUTCOMES:
            documents.add_metric([outcome], getattr(status.ledger, outcome))
        yield documents


@contextmanager
def metrics_served(status: Callable[[], FollowStatus], *, host: str, port: int) -> Iterator[int]:
    """Serves `/metrics` meanwhile; gives the port, a free one where 0 was asked for.

    Raises:
        UsageError: the port cannot be listened on.
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
