"""Attempts are spread in time, bounded by number and time, and end when the operator stops the run."""

import statistics
import threading

import pytest

from bridge.errors import AccessDenied, ClusterUnreachable
from ingest.writing.retry import Backoff, RetryLimits, RunStopped, retrying

FAST = RetryLimits(max_stall_s=5.0, backoff_base_s=0.001, backoff_cap_s=0.001)


class Waits(threading.Event):
    """Keeps how long it was asked to wait, and does not."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.seconds.append(timeout or 0.0)
        return False


@pytest.mark.case("I1")
def test_waits_grow_and_are_jittered() -> None:
    runs = []
    for _ in range(300):
        waits = Waits()
        backoff = Backoff(RetryLimits(max_attempts=6, backoff_base_s=1.0, backoff_cap_s=4.0), waits)
        while backoff.wait():
            pass
        runs.append(waits.seconds)
    columns = list(zip(*runs, strict=True))
    means = [statistics.mean(column) for column in columns]
    # Evenly spread between nothing and 1, 2, 4, 4 and 4 seconds.
    assert means == pytest.approx([0.5, 1, 2, 2, 2], rel=0.25)
    assert all(min(column) < mean / 4 for column, mean in zip(columns, means, strict=True))


def test_attempts_end_at_their_number_unless_only_time_counts() -> None:
    limits = RetryLimits(max_attempts=2)
    counted, timed = Backoff(limits, Waits()), Backoff(limits, Waits())
    assert [counted.wait() for _ in range(2)] == [True, False]
    assert [timed.wait(count=False) for _ in range(3)] == [True, True, True]


def test_a_stopped_run_waits_no_longer() -> None:
    stopped = threading.Event()
    stopped.set()
    with pytest.raises(RunStopped):
        Backoff(RetryLimits(), stopped).wait()


def test_a_question_is_asked_again_until_the_cluster_answers() -> None:
    failures = [ClusterUnreachable("away"), ClusterUnreachable("away")]

    def ask(number: int) -> int:
        if failures:
            raise failures.pop()
        return number + 7

    assert retrying(ask, FAST, threading.Event())(1) == 8


def test_an_answer_that_no_time_changes_is_not_asked_for_again() -> None:
    asked: list[int] = []

    def ask(number: int) -> int:
        asked.append(number)
        raise AccessDenied("no")

    with pytest.raises(AccessDenied):
        retrying(ask, FAST, threading.Event())(1)
    assert asked == [1]
