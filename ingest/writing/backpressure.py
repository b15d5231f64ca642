"""How much is asked of the cluster at once: less as soon as it says so, slowly more afterwards."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Throttle:
    """Bounds requests in flight and documents per request (additive increase, multiplicative decrease:
    Chiu & Jain 1989). Safe to use from several threads."""

    def __init__(self, *, max_requests: int, max_documents: int) -> None:
        """Starts at both bounds, which are never exceeded."""
        self._most = (max_requests, max_documents)
        self._requests, self._documents = max_requests, max_documents
        self._in_flight = 0
        self._free = threading.Condition()

    @property
    def documents(self) -> int:
        """Documents that one request may hold now."""
        return self._documents

    @property
    def requests(self) -> int:
        """Requests that may be in flight now."""
        return self._requests

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Waits until one more request may be in flight."""
        with self._free:
            self._free.wait_for(lambda: self._in_flight < self._requests)
            self._in_flight += 1
        try:
            yield
        finally:
            with self._free:
                self._in_flight -= 1
                self._free.notify()

    def slow_down(self) -> None:
        """The cluster is overloaded: half of everything."""
        with self._free:
            self._requests = max(1, self._requests // 2)
            self._documents = max(1, self._documents // 2)

    def speed_up(self) -> None:
        """A request went through whole."""
        with self._free:
            most_requests, most_documents = self._most
            self._documents = min(most_documents, self._documents + max(1, most_documents // 10))
            if self._documents == most_documents:
                self._requests = min(most_requests, self._requests + 1)
            self._free.notify_all()
