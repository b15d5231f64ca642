"""Threads that share a list of sequences among themselves."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from bridge.models.tokenization import TokenArrays

Result = TypeVar("Result")


class ComputingThreads:
    """Computes one result for each sequence; safe to use from several threads.

    A thread takes the next sequence as soon as it is done with one, and the caller is told at the end only: to wake it
    for each result took a quarter of a small model's time.
    """

    def __init__(self, threads: int, *, name: str) -> None:
        """`name` is what the threads are called in a dump of their stacks."""
        self._n_threads = threads
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix=name)

    def map(self, compute: Callable[[TokenArrays], Result], sequences: Sequence[TokenArrays]) -> list[Result]:
        """`compute` of each sequence, input order. What it raises ends the others' work, too."""
        # Longest first: the threads end together.
        order = sorted(range(len(sequences)), key=lambda row: -sequences[row]["input_ids"].size)
        rows = iter(order)  # whose next is taken by one thread only
        results: dict[int, Result] = {}

        def take_until_none_is_left(_: int) -> None:
            for row in rows:
                try:
                    results[row] = compute(sequences[row])
                except BaseException:
                    for _ in rows:  # so that nothing is left for the others
                        pass
                    raise

        for _ in self._executor.map(take_until_none_is_left, range(min(self._n_threads, len(order)))):
            pass
        return [results[row] for row in range(len(sequences))]

    def close(self) -> None:
        """Ends the threads; they are of no use afterwards."""
        self._executor.shutdown()
