"""What the proxy publishes."""

import re
from pathlib import Path

from bridge.proxy.server.metrics import Metrics

REFERENCE = Path(__file__).parents[4] / "docs" / "reference" / "metrics.md"


def test_every_metric_is_in_the_reference() -> None:
    published = set(re.findall(r"^# TYPE (\w+)", Metrics().exposition().decode(), re.MULTILINE))
    written = REFERENCE.read_text("utf-8")

    # A counter's creation time comes with it, and is nobody's business.
    assert {name for name in published if not name.endswith("_created") and name not in written} == set()


def test_two_proxies_in_one_process_count_apart() -> None:
    one, other = Metrics(), Metrics()
    one.passed.labels("busy").inc()

    assert b'bridge_proxy_passed_total{reason="busy"} 1.0' in one.exposition()
    assert b"bridge_proxy_passed_total{" not in other.exposition()
