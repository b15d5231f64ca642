"""Lets one thread's work go before another's: whoever comes second waits before each piece of its own.

Thread priorities would not do. A thread of low priority that holds the interpreter's lock is not run while others
compute, and whoever waits for that lock waits with it.
"""

import threading
from collections.abc import Sequence
from typing import Self

from ingest.stages.models import QueryGenerator


class Precedence:
    """Entered while there is work that goes first."""

    def __init__(self) -> None:
        self._none = threading.Event()
        self._none.set()

    def __enter__(self) -> Self:
        self._none.clear()
        return self

    def __exit__(self, *_: object) -> None:
        self._none.set()

    def wait(self) -> None:
        """Until nothing goes first."""
        self._none.wait()


class WaitingGenerator:
    """A query generator that predicts nothing while other work goes first."""

    def __init__(self, generator: QueryGenerator, precedence: Precedence) -> None:
        self._generator = generator
        self._precedence = precedence

    def generate(self, passages: Sequence[str], *, n_queries: int, max_new_tokens: int, seed: int) -> list[list[str]]:
        """See `QueryGenerator`."""
        self._precedence.wait()
        return self._generator.generate(passages, n_queries=n_queries, max_new_tokens=max_new_tokens, seed=seed)
