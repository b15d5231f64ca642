"""All followers of one generation of one index: one, or two of which the second only uses the computing time that the
first leaves; and how the followers of several indices share two threads.

Thread priorities would not do. A thread of low priority that holds the interpreter's lock is not run while others
compute, and whoever waits for that lock waits with it. So the second one's generator waits before each call.
"""

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from signal import SIGTERM
from typing import Self

from bridge.errors import IndexUnsuitable
from bridge.models.protocols import QueryGenerator
from ingest.follow.fields import steps
from ingest.follow.follower import Follower
from ingest.follow.state import FollowStatus, OnStatus
from ingest.job import Job
from ingest.signals import StopRequest


class Priority:
    """Entered while there is work that goes first."""

    def __init__(self) -> None:
        self._idle = threading.Event()
        self._idle.set()

    def __enter__(self) -> Self:
        self._idle.clear()
        return self

    def __exit__(self, *_: object) -> None:
        self._idle.set()

    def wait(self) -> None:
        """Waits until no work goes first."""
        self._idle.wait()


class WaitingGenerator:
    """A query generator that predicts nothing while other work goes first."""

    def __init__(self, generator: QueryGenerator, priority: Priority) -> None:
        self._generator = generator
        self._priority = priority

    def generate(self, passages: Sequence[str], *, n_queries: int, max_new_tokens: int, seed: int) -> list[list[str]]:
        """See `QueryGenerator`."""
        self._priority.wait()
        return self._generator.generate(passages, n_queries=n_queries, max_new_tokens=max_new_tokens, seed=seed)


class FollowerPair:
    """The followers of one index; the second one's fields come after the first one's."""

    def __init__(self, job: Job, stop: StopRequest, priority: Priority | None = None) -> None:
        """`job` as for `Follower`, which says what is raised; work on any index of one `priority` goes before queries
        of all of them."""
        first, *second = steps(job.profile)
        priority = priority or Priority()
        self._stop = stop.part()
        self._interval_s = job.settings.follow_interval_s
        self._followers = [Follower(job, self._stop.part(), fields=first, while_busy=priority)]
        for fields in second:
            generator = job.models.generator and WaitingGenerator(job.models.generator, priority)
            waiting = replace(
                job, models=replace(job.models, generator=generator), state_folder=job.state_folder / fields
            )
            self._followers.append(Follower(waiting, self._stop.part(), fields=fields, after=self._followers[0]))
        self._at_work = [threading.Lock() for _ in self._followers]
        self._locks = ExitStack()

    def __enter__(self) -> Self:
        """Locks the state folders.

        Raises:
            CheckpointUnusable: another follower has locked one.
        """
        with ExitStack() as locks:
            for follower in self._followers:
                locks.enter_context(follower)
            self._locks = locks.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        """Ends the turns that are under way, and unlocks them."""
        self._stop.ask(SIGTERM)
        with ExitStack() as ended:
            for lock in self._at_work:
                ended.enter_context(lock)
            self._locks.close()

    def follow(self, *, once: bool = False, on_status: OnStatus | None = None) -> list[FollowStatus]:
        """Follows as `Follower.follow` does; when one ends, so does the other. `on_status` is called on several
        threads, one call at a time."""
        if once:
            return [follower.follow(once=True, on_status=on_status) for follower in self._followers]

        def failed(_: FollowerPair, error: IndexUnsuitable) -> None:
            raise error

        follow_together(lambda: [self], self._stop, self._interval_s, on_status, failed)
        return self.status()

    def turn(self, step: int, on_status: OnStatus | None) -> bool:
        """One round of the first follower (0) or the second (1), if there is such a one and nobody asked it to stop;
        whether another is worth while at once. Raises as `Follower.follow` does."""
        if step >= len(self._followers):
            return False
        with self._at_work[step]:
            if self._stop.number is not None:
                return False
            more = self._followers[step].turn()
        if on_status is not None:
            on_status(self._followers[step].status())
        return more

    def status(self) -> list[FollowStatus]:
        """Each follower's status now."""
        return [follower.status() for follower in self._followers]

    @property
    def dead_letters(self) -> list[Path]:
        """Each follower's file of dead letters, which exists if there are any."""
        return [follower.dead_letters for follower in self._followers]


def follow_together(
    pairs: Callable[[], Sequence[FollowerPair]],
    stop: StopRequest,
    interval_s: float,
    on_status: OnStatus | None,
    failed: Callable[[FollowerPair, IndexUnsuitable], None],
) -> None:
    """Follows several indices until a signal comes: one thread takes a turn of each pair's first follower after the
    other, another of each pair's second. `pairs` gives those of now, `failed` gets one whose index cannot be followed
    any more. Each of these functions is called on both threads, one call at a time.

    Raises:
        BridgeError: what `pairs`, `failed` and `Follower.follow` say.
    """
    one_by_one = threading.Lock()

    def report(status: FollowStatus) -> None:
        if on_status is not None:
            with one_by_one:
                on_status(status)

    def turn(pair: FollowerPair, step: int) -> bool:
        try:
            return pair.turn(step, report)
        except IndexUnsuitable as error:
            with one_by_one:
                failed(pair, error)
            return False

    def take_turns(step: int) -> None:
        try:
            while stop.number is None:
                began = time.monotonic()
                with one_by_one:
                    now = pairs()
                more = [turn(pair, step) for pair in now]
                if not any(more):
                    stop.stopped.wait(max(0.0, interval_s - (time.monotonic() - began)))
        finally:
            if stop.number is None:
                stop.ask(SIGTERM)

    with ThreadPoolExecutor(2, thread_name_prefix="follow") as pool:
        ends = [pool.submit(take_turns, step) for step in (0, 1)]
    for end in ends:
        end.result()
