"""Stages that overlap: each works ahead of the next by a few items, never by more."""

import threading
from collections.abc import Iterable, Iterator
from queue import Empty, Full, Queue
from types import TracebackType
from typing import Final, Self, TypeVar

T = TypeVar("T")

_POLL_S = 0.1
"""How soon a stage notices that it is to end."""

_JOIN_S = 30.0
"""How long a stage may finish the item in its hands; a read of stdin may never end."""


class _End:
    """The last thing in a queue: the iterable ended, by itself or by an error."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error: Final = error


class Stages:
    """Threads that work ahead. On leaving the context they are told to end and waited for."""

    def __init__(self, stopped: threading.Event) -> None:
        """`stopped`, once set, ends every iteration early, as if its items were over: whoever sets it tells
        that end from the real one."""
        self._stopped = stopped
        self._left = threading.Event()
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._left.set()
        for thread in self._threads:
            thread.join(_JOIN_S)

    def ahead(self, items: Iterable[T], *, n_items: int, name: str) -> Iterator[T]:
        """Iterates over `items` on a thread of its own, at most `n_items` ahead of whoever takes them.

        An error of the iterable is raised where its items are taken.
        """
        queue: Queue[T | _End] = Queue(n_items)
        thread = threading.Thread(target=self._work, args=(items, queue), name=name, daemon=True)
        self._threads.append(thread)
        thread.start()
        return self._taken(queue)

    def _work(self, items: Iterable[T], queue: Queue[T | _End]) -> None:
        try:
            for item in items:
                if not self._put(queue, item):
                    return
        except BaseException as error:  # noqa: BLE001 (raised again on the other side)
            self._put(queue, _End(error))
        else:
            self._put(queue, _End())

    def _put(self, queue: Queue[T | _End], item: T | _End) -> bool:
        while not self._over():
            try:
                queue.put(item, timeout=_POLL_S)
            except Full:
                continue
            return True
        return False

    def _taken(self, queue: Queue[T | _End]) -> Iterator[T]:
        while not self._over():
            try:
                item = queue.get(timeout=_POLL_S)
            except Empty:
                continue
            if isinstance(item, _End):
                if item.error is not None:
                    raise item.error
                return
            yield item

    def _over(self) -> bool:
        return self._stopped.is_set() or self._left.is_set()
