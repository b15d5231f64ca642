"""What the proxy counts and times, under the names that docs/reference/metrics.md lists."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client import generate_latest as _generate_latest

from bridge import __version__

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_TENTHS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


class Metrics:
    """The proxy's own registry; labels hold words of ours only, never a caller's."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "bridge_proxy_requests",
            "Requests answered, by kind of path, what the bridge decided, and HTTP status.",
            ("route", "decision", "code"),
            registry=self.registry,
        )
        self.duration = Histogram(
            "bridge_proxy_request_duration_seconds",
            "From a request's headers to the end of its answer.",
            ("decision",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.stage_duration = Histogram(
            "bridge_proxy_stage_duration_seconds",
            "Time of each stage of an upgraded search.",
            ("stage",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.degraded = Counter(
            "bridge_proxy_degraded",
            "Upgraded searches that lacked a stage, by reason.",
            ("reason",),
            registry=self.registry,
        )
        self.passed = Counter(
            "bridge_proxy_passed",
            "Searches that went through unchanged, by reason.",
            ("reason",),
            registry=self.registry,
        )
        self.ranking_cache = Counter(
            "bridge_proxy_ranking_cache",
            "Searches that a kept ranking might serve, by outcome: hit, miss, or changed (the index has changed).",
            ("outcome",),
            registry=self.registry,
        )
        self.confidence = Histogram(
            "bridge_proxy_confidence",
            "Upgraded searches of calibrated indices: the probability that the index answers the query.",
            buckets=_TENTHS,
            registry=self.registry,
        )
        self.fallbacks = Counter(
            "bridge_proxy_fallbacks",
            "Answers with the closest documents because the application's own query matches nothing.",
            registry=self.registry,
        )
        self.sentences = Counter(
            "bridge_proxy_sentences",
            "Hits that got the sentence that answers in place of a highlight.",
            registry=self.registry,
        )
        self.repairs = Counter(
            "bridge_proxy_repairs",
            "Answers that were ranked by repaired words, because a word of the search was misspelt.",
            registry=self.registry,
        )
        self.shadow_overlap = Histogram(
            "bridge_proxy_shadow_overlap",
            "Shadow mode: share of the first ten hits that both rankings have.",
            buckets=_TENTHS,
            registry=self.registry,
        )
        self.in_flight = Gauge(
            "bridge_proxy_requests_in_flight", "Requests being answered now.", registry=self.registry
        )
        self.upstream_connections = Gauge(
            "bridge_proxy_upstream_connections",
            "Open connections to the cluster, busy and idle.",
            registry=self.registry,
        )
        build = Gauge("bridge_build_info", "Always 1.", ("version",), registry=self.registry)
        build.labels(version=__version__).set(1)

    def exposition(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return _generate_latest(self.registry)
