"""Admission, one queue for all requests, and the threads that compute.

A request is admitted or refused at once, by the number of its sequences. What is admitted shares the threads
by turns: a thread takes sequences of one request up to a number of tokens, then looks which request is next. One
that a single turn ends comes first, such as a query to embed, for which a whole search waits. Of the others, the one
that must end first: each may take some times as long as it takes alone. So a small request overtakes a big one, and
requests of about the same size end in their order. Work whose client has left, or whose time is over, is dropped
before it is computed.
"""

import asyncio
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

from bridge.models.tokenization import TokenArrays
from rerank_server.errors import DeadlineExceeded, Overloaded, TooLarge
from rerank_server.metrics import Metrics

STRETCH = 8
"""So many times as long as it takes alone may a request take before others of any size no longer overtake it."""

OLDEST_EVERY = 8
"""Each so manyth turn goes to the request that came first: those of one turn without end cannot starve a big one."""

Result = TypeVar("Result")


class _Job(Generic[Result]):
    """One request's sequences, and the results so far. `waiting` and `tokens_left` are guarded by the queue's lock."""

    def __init__(
        self, sequences: Sequence[TokenArrays], compute: Callable[[Sequence[TokenArrays]], Sequence[Result]]
    ) -> None:
        self.sequences = sequences
        self.compute = compute
        self.results: list[Result | None] = [None] * len(sequences)
        # Longest first, so that the threads end together.
        self.waiting = deque(sorted(range(len(sequences)), key=lambda row: -_tokens(sequences[row])))
        self.tokens = self.tokens_left = sum(map(_tokens, sequences))
        self.unfinished = len(sequences)
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[list[Result]] = self.loop.create_future()
        self.enqueued_at = time.monotonic()
        self.started = False

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
        self._seconds_per_token = 0.0
        self._turns = 0
        self._jobs: list[_Job[Any]] = []
        self._changed = threading.Condition()
        self._stopping = False
        self._threads = [
            threading.Thread(target=self._compute_until_stopped, name=f"compute-{number}", daemon=True)
            for number in range(threads)
        ]
        self._preparing = ThreadPoolExecutor(1, thread_name_prefix="prepare")

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
        self._preparing.shutdown()

    @property
    def is_alive(self) -> bool:
        """Whether every computing thread lives."""
        return all(thread.is_alive() for thread in self._threads)

    @property
    def n_threads(self) -> int:
        """How many threads compute."""
        return len(self._threads)

    @contextmanager
    def admitted(self, n_sequences: int) -> Iterator[None]:
        """Holds room for a request's sequences.

        Raises:
            TooLarge: there never is so much room.
            Overloaded: there is no room now; nothing waits for room.
        """
        if n_sequences > self._max_queued:
            raise TooLarge(
                f"the request has {n_sequences} sequences, room is for {self._max_queued}: send several requests"
            )
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

    async def prepared(self, prepare: Callable[[], Result]) -> Result:
        """What `prepare` gives, called beside the event loop: to tokenise a full request takes up to a second."""
        return await asyncio.get_running_loop().run_in_executor(self._preparing, prepare)

    async def run(
        self,
        sequences: Sequence[TokenArrays],
        compute: Callable[[Sequence[TokenArrays]], Sequence[Result]],
        *,
        deadline: float,
    ) -> list[Result]:
        """Computes every sequence, results in input order; `compute` gives one result for each sequence of a turn.
        `deadline` in the event loop's time.

        Raises:
            DeadlineExceeded: the deadline came first.
            ModelError: the model failed on a sequence.
        """
        if not sequences:
            return []
        job = _Job(sequences, compute)
        with self._changed:
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
                self._drop(job)

    def _seconds_until_room(self) -> int:
        return max(1, math.ceil(self._admitted * self._seconds_per_sequence / len(self._threads)))

    def _compute_until_stopped(self) -> None:
        while (turn := self._next_turn()) is not None:
            job, rows = turn
            try:
                self._compute(job, rows)
            except Exception as error:  # noqa: BLE001 - a thread must outlive whatever a model raises
                with self._changed:
                    self._drop(job)
                job.finish(error)

    def _compute(self, job: _Job[Any], rows: list[int]) -> None:
        started = time.monotonic()
        computed = job.compute([job.sequences[row] for row in rows])
        for row, result in zip(rows, computed, strict=True):
            job.results[row] = result
        self._metrics.batch_sequences.observe(len(rows))
        tokens = sum(_tokens(job.sequences[row]) for row in rows)
        self._metrics.batch_tokens.observe(tokens)
        with self._changed:
            job.unfinished -= len(rows)
            is_finished = job.unfinished == 0
            spent_s = time.monotonic() - started
            self._seconds_per_sequence += 0.1 * (spent_s / len(rows) - self._seconds_per_sequence)
            self._seconds_per_token += 0.1 * (spent_s / tokens - self._seconds_per_token)
        if is_finished:
            job.finish(None)

    def _drop(self, job: _Job[Any]) -> None:
        """Gives the job no further turn."""
        if job in self._jobs:
            self._jobs.remove(job)

    def _next_turn(self) -> tuple[_Job[Any], list[int]] | None:
        """Waits for work; None when stopping."""
        with self._changed:
            while not self._stopping:
                if not self._jobs:
                    self._changed.wait()
                    continue
                job = self._next_job()
                if not job.started:
                    job.started = True
                    self._metrics.queue_duration.observe(time.monotonic() - job.enqueued_at)
                rows = self._take(job)
                if not job.waiting:
                    self._jobs.remove(job)
                return job, rows
        return None

    def _next_job(self) -> _Job[Any]:
        self._turns += 1
        if self._turns % OLDEST_EVERY == 0:
            return self._jobs[0]
        seconds_per_token = self._seconds_per_token / len(self._threads)
        return min(
            self._jobs,
            key=lambda job: (
                job.tokens_left > self._max_batch_tokens,
                job.enqueued_at + STRETCH * job.tokens * seconds_per_token,
            ),
        )

    def _take(self, job: _Job[Any]) -> list[int]:
        """At least one sequence, and as many as `max_batch_tokens` hold."""
        rows = [job.waiting.popleft()]
        tokens = _tokens(job.sequences[rows[0]])
        while job.waiting and tokens + _tokens(job.sequences[job.waiting[0]]) <= self._max_batch_tokens:
            rows.append(job.waiting.popleft())
            tokens += _tokens(job.sequences[rows[-1]])
        job.tokens_left -= tokens
        return rows


def _tokens(sequence: TokenArrays) -> int:
    return sequence["input_ids"].size
