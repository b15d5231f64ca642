"""The sidecar's Prometheus metrics, in a registry of their own; no label value comes from a request."""

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from bridge import __version__

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_SEQUENCES = (1, 2, 5, 10, 20, 50, 100)
_TOKENS = (16, 32, 64, 128, 256, 512, 1024, 2048)


class Metrics:
    """One attribute per metric."""

    def __init__(self) -> None:
        """Registers all metrics at zero."""
        self._registry = CollectorRegistry()
        self.build_info = Gauge(
            "bridge_build_info", "Version and models, value 1.", ["version", "model"], registry=self._registry
        )
        self.requests = Counter(
            "bridge_rerank_requests", "Requests answered.", ["route", "code"], registry=self._registry
        )
        self.request_duration = Histogram(
            "bridge_rerank_request_duration_seconds",
            "Time from headers to answer.",
            ["route"],
            buckets=_SECONDS,
            registry=self._registry,
        )
        self.queue_size = Gauge(
            "bridge_rerank_queue_size", "Sequences admitted and not yet answered.", registry=self._registry
        )
        self.queue_duration = Histogram(
            "bridge_rerank_queue_duration_seconds",
            "Time of a request in the queue before its first sequence is computed.",
            buckets=_SECONDS,
            registry=self._registry,
        )
        self.batch_sequences = Histogram(
            "bridge_rerank_batch_pairs",
            "Sequences that one turn of a request computes.",
            buckets=_SEQUENCES,
            registry=self._registry,
        )
        self.batch_tokens = Histogram(
            "bridge_rerank_batch_tokens",
            "Tokens that one turn of a request computes.",
            buckets=_TOKENS,
            registry=self._registry,
        )
        self.rejected = Counter(
            "bridge_rerank_rejected", "Requests refused before any work.", ["reason"], registry=self._registry
        )
        self.dropped = Counter(
            "bridge_rerank_dropped", "Requests given up after admission.", ["reason"], registry=self._registry
        )
        self.cached = Counter(
            "bridge_rerank_cached_pairs",
            "Pairs looked for in the cache of scores.",
            ["outcome"],
            registry=self._registry,
        )
        self.model_errors = Counter(
            "bridge_rerank_model_errors", "Requests that a model failed on.", registry=self._registry
        )

    def show_models(self, identities: Iterable[str]) -> None:
        """Publishes which models serve, and no others."""
        self.build_info.clear()
        for identity in identities:
            self.build_info.labels(__version__, identity).set(1)

    def exposition(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self._registry)
