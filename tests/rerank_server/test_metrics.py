"""What the sidecar publishes."""

import re

from rerank_server.metrics import Metrics


def test_all_metrics_are_there_from_the_start_and_carry_our_prefix() -> None:
    names = set(re.findall(r"^# TYPE (\w+)", Metrics().exposition().decode(), re.MULTILINE))

    assert {"bridge_rerank_requests_total", "bridge_rerank_queue_size", "bridge_rerank_batch_tokens"} <= names
    assert {name for name in names if not name.startswith("bridge_")} == set()


def test_two_sidecars_in_one_process_count_apart() -> None:
    one, other = Metrics(), Metrics()
    one.model_errors.inc()

    assert b"bridge_rerank_model_errors_total 1.0" in one.exposition()
    assert b"bridge_rerank_model_errors_total 0.0" in other.exposition()


def test_models_that_no_longer_serve_are_not_shown() -> None:
    metrics = Metrics()
    metrics.show_models(["old@1"])
    metrics.show_models(["new@2"])

    assert b'model="new@2"' in metrics.exposition()
    assert b"old@1" not in metrics.exposition()
