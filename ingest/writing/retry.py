"""How often and how long a request is tried again."""

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from bridge.errors import AnswerNotUnderstood, ClusterUnreachable, IngestError

A = TypeVar("A")
B = TypeVar("B")


class RunStopped(IngestError):
    """The operator stopped the run."""


@dataclass(frozen=True, slots=True)
class RetryLimits:
    """When to give up; see `IngestSettings` for the first two."""

    max_attempts: int = 8
    max_stall_s: float = 300.0
    backoff_base_s: float = 1.0
    backoff_cap_s: float = 30.0


class Backoff:
    """The waits between the attempts at one request. They grow and have full jitter (Brooker 2015, "Exponential
    backoff and jitter"), so that clients that failed together come back apart."""

    def __init__(self, limits: RetryLimits, stopped: threading.Event) -> None:
        """`stopped`, once set, ends waits early."""
        self._limits = limits
        self._stopped = stopped
        self._began = time.monotonic()
        self.attempts = 0

    @property
    def waited_s(self) -> float:
        """Seconds since the first attempt."""
        return time.monotonic() - self._began

    def wait(self, *, retry_after_s: float = 0.0, count: bool = True) -> bool:
        """Waits before the next attempt; False if the limits allow none. With `count` off only the time limit holds.

        Raises:
            RunStopped: the operator stopped the run meanwhile.
        """
        self.attempts += 1
        left_s = self._limits.max_stall_s - self.waited_s
        if left_s <= 0 or (count and self.attempts >= self._limits.max_attempts):
            return False
        longest = min(self._limits.backoff_cap_s, self._limits.backoff_base_s * 2 ** (self.attempts - 1))
        pause = max(random.uniform(0, longest), retry_after_s)
        if self._stopped.wait(min(pause, left_s)):
            raise RunStopped("stopped while the cluster did not do what was asked")
        return True


def retrying(ask: Callable[[A], B], limits: RetryLimits, stopped: threading.Event) -> Callable[[A], B]:
    """`ask`, called again while the cluster does not answer or gives another answer; `ask` must change nothing."""

    def ask_again(question: A) -> B:
        backoff = Backoff(limits, stopped)
        while True:
            try:
                return ask(question)
            except (ClusterUnreachable, AnswerNotUnderstood):
                if not backoff.wait(count=False):
                    raise

    return ask_again
