"""Admission, one queue for all requests, and the threads that compute.

A request is admitted or refused at once, by the number of its sequences. What is admitted shares the threads
by turns: a thread takes sequences of one request up to a number of tokens, then looks at the next request, so
a small request never waits for all of a big one, and a tiny one hardly waits. Work whose client has left, or
whose time is over, is dropped before it is computed.
"""

import asyncio
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

from bridge.models.tokenization import TokenArrays
from rerank_server.errors import DeadlineExceeded, Overloaded
from rerank_server.metrics import Metrics

TINY_TOKENS = 64
"""A request up to this size goes first: mostly a query to embed, for which a whole search waits, and which takes the
others no more than a few milliseconds."""

Result = TypeVar("Result")


class _Job(Generic[Result]):
    """One request's sequences, and the results so far. `turn_to` is guarded by the queue's lock."""

    def __init__(self, sequences: Sequence[TokenArrays], compute: Callable[[TokenArrays], Result]) -> None:
        self.sequences = sequences
        self.compute = compute
        self.results: list[Result | None] = [None] * len(sequences)
        # Longest first, so that the threads end together.
        self.waiting = deque(sorted(range(len(sequences)), key=lambda row: -_tokens(sequences[row])))
        self.unfinished = len(sequences)
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[list[Result]] = self.loop.create_future()
        self.enqueued_at = time.monotonic()
        self.started = False
        self.abandoned = False

    def finish(self, error: BaseException | None) -> None:
        """Hands the outcome to the event loop; called on a computing thread."""
        self.loop.call_soon_threadsafe(self._resolve, error)

    def _resolve(self, error: BaseException | None) -> None:
        if self.future.done():
            return
        if error is not None:
            self.future.set_exception(error)
        else:
            self.future.set_result([result for result in self.results if result is not None])


class WorkQueue:
    """The queue and its threads; one per process."""

    def __init__(self, *, threads: int, max_queued: int, max_batch_tokens: int, metrics: Metrics) -> None:
        """`max_queued` bounds the sequences that are admitted and not yet answered."""
        self._max_queued = max_queued
        self._max_batch_tokens = max_batch_tokens
        self._metrics = metrics
        self._admitted = 0
        self._seconds_per_sequence = 0.0
        self._jobs: deque[_Job[Any]] = deque()
        self._changed = threading.Condition()
        self._stopping = False
        self._threads = [
            threading.Thread(target=self._compute_until_stopped, name=f"compute-{number}", daemon=True)
            for number in range(threads)
        ]

    def start(self) -> None:
        """Starts the computing threads."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Ends the threads after the sequences that they are computing now."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    @property
    def is_alive(self) -> bool:
        """Whether every computing thread lives."""
        return all(thread.is_alive() for thread in self._threads)

    @contextmanager
    def admitted(self, n_sequences: int) -> Iterator[None]:
        """Holds room for a request's sequences.

        Raises:
            Overloaded: there is no room; nothing waits for room.
        """
        if self._admitted + n_sequences > self._max_queued:
            self._metrics.rejected.labels("overloaded").inc()
            raise Overloaded(
                f"{self._admitted} sequences are waiting and {n_sequences} came, room is for "
                f"{self._max_queued}: come again later, or send fewer",
                retry_after_s=self._seconds_until_room(),
            )
        self._admitted += n_sequences
        self._metrics.queue_size.set(self._admitted)
        try:
            yield
        finally:
            self._admitted -= n_sequences
            self._metrics.queue_size.set(self._admitted)

    async def run(
        self, sequences: Sequence[TokenArrays], compute: Callable[[TokenArrays], Result], *, deadline: float
    ) -> list[Result]:
        """Computes every sequence, results in input order. `deadline` in the event loop's time.

        Raises:
            DeadlineExceeded: the deadline came first.
            ModelError: the model failed on a sequence.
        """
        if not sequences:
            return []
        job = _Job(sequences, compute)
        is_tiny = sum(_tokens(sequence) for sequence in sequences) <= TINY_TOKENS
        with self._changed:
            if is_tiny:
                self._jobs.appendleft(job)
            else:
                self._jobs.append(job)
            self._changed.notify_all()
        try:
            async with asyncio.timeout_at(deadline):
                return await job.future
        except TimeoutError as error:
            self._metrics.dropped.labels("deadline").inc()
            raise DeadlineExceeded("the request's time was over before its scores were computed") from error
        except asyncio.CancelledError:
            self._metrics.dropped.labels("client_left").inc()
            raise
        finally:
            with self._changed:
                job.abandoned = True

    def _seconds_until_room(self) -> int:
        return max(1, math.ceil(self._admitted * self._seconds_per_sequence / len(self._threads)))

    def _compute_until_stopped(self) -> None:
        while (turn := self._next_turn()) is not None:
            job, rows = turn
            try:
                self._compute(job, rows)
            except Exception as error:  # noqa: BLE001 - a thread must outlive whatever a model raises
                with self._changed:
                    job.abandoned = True
                job.finish(error)

    def _compute(self, job: _Job[Any], rows: list[int]) -> None:
        started = time.monotonic()
        for row in rows:
            if job.abandoned:
                return
            job.results[row] = job.compute(job.sequences[row])
        self._metrics.batch_sequences.observe(len(rows))
        self._metrics.batch_tokens.observe(sum(_tokens(job.sequences[row]) for row in rows))
        with self._changed:
            job.unfinished -= len(rows)
            is_finished = job.unfinished == 0
            spent_s = (time.monotonic() - started) / len(rows)
            self._seconds_per_sequence += 0.1 * (spent_s - self._seconds_per_sequence)
        if is_finished:
            job.finish(None)

    def _next_turn(self) -> tuple[_Job[Any], list[int]] | None:
        """Waits for work; None when stopping. The request goes to the end of the queue with what it has left."""
        with self._changed:
            while not self._stopping:
                if not self._jobs:
                    self._changed.wait()
                    continue
                job = self._jobs.popleft()
                if job.abandoned:
                    continue
                if not job.started:
                    job.started = True
                    self._metrics.queue_duration.observe(time.monotonic() - job.enqueued_at)
                rows = self._take(job)
                if job.waiting:
                    self._jobs.append(job)
                return job, rows
        return None

    def _take(self, job: _Job[Any]) -> list[int]:
        """At least one sequence, and as many as `max_batch_tokens` hold."""
        rows = [job.waiting.popleft()]
        tokens = _tokens(job.sequences[rows[0]])
        while job.waiting and (tokens := tokens + _tokens(job.sequences[job.waiting[0]])) <= self._max_batch_tokens:
            rows.append(job.waiting.popleft())
        return rows


def _tokens(sequence: TokenArrays) -> int:
    return sequence["input_ids"].size
