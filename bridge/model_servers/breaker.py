"""A circuit breaker: after some failures in a row a service is left alone for a while.

Then one caller may try; if that succeeds the breaker closes, otherwise the while begins anew. So a dead
or drowning sidecar costs searches nothing, and is found again within seconds.
"""

import time
from collections.abc import Callable


class CircuitBreaker:
    """Ask `allows` before a call, and tell `succeeded` or `failed` after it."""

    def __init__(self, *, failures: int, reset_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        """`failures` in a row open the breaker for `reset_s`; `clock` gives seconds."""
        self._limit = failures
        self._reset_s = reset_s
        self._clock = clock
        self._failures = 0
        self._closed_until_tried: float | None = None

    @property
    def open(self) -> bool:
        """Whether the service is being left alone."""
        return self._closed_until_tried is not None

    def allows(self) -> bool:
        """Whether to call now. While open, one caller per `reset_s` is let through to try."""
        if self._closed_until_tried is None:
            return True
        now = self._clock()
        if now < self._closed_until_tried:
            return False
        self._closed_until_tried = now + self._reset_s
        return True

    def succeeded(self) -> None:
        """The service answered as it should."""
        self._failures = 0
        self._closed_until_tried = None

    def failed(self) -> None:
        """The service did not answer, or answered nonsense."""
        self._failures += 1
        if self._failures >= self._limit:
            self._closed_until_tried = self._clock() + self._reset_s
