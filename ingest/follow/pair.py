"""All followers of one generation of one index: one, or two of which the second only uses the computing time that the
first leaves.

Thread priorities would not do. A thread of low priority that holds the interpreter's lock is not run while others
compute, and whoever waits for that lock waits with it. So the second one's generator waits before each call.
"""

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from signal import SIGTERM
from typing import Self

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

    def __init__(self, job: Job, stop: StopRequest) -> None:
        """`job` as for `Follower`, which says what is raised."""
        first, *second = steps(job.profile)
        priority = Priority()
        self._stops = [stop.part()]
        self._followers = [Follower(job, self._stops[0], fields=first, while_busy=priority)]
        for fields in second:
            self._stops.append(stop.part())
            generator = job.models.generator and WaitingGenerator(job.models.generator, priority)
            waiting = replace(
                job, models=replace(job.models, generator=generator), state_folder=job.state_folder / fields
            )
            self._followers.append(Follower(waiting, self._stops[1], fields=fields, after=self._followers[0]))
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
        """Unlocks them."""
        self._locks.close()

    def follow(self, *, once: bool = False, on_status: OnStatus | None = None) -> list[FollowStatus]:
        """Follows as `Follower.follow` does; when one ends, so does the other. `on_status` is called on several
        threads, one call at a time."""
        if once:
            return [follower.follow(once=True, on_status=on_status) for follower in self._followers]
        one_by_one = threading.Lock()

        def report(status: FollowStatus) -> None:
            if on_status is not None:
                with one_by_one:
                    on_status(status)

        def follow(follower: Follower) -> FollowStatus:
            try:
                return follower.follow(on_status=report)
            finally:
                for stop in self._stops:
                    if stop.number is None:
                        stop.ask(SIGTERM)

        with ThreadPoolExecutor(len(self._followers), thread_name_prefix="follow") as pool:
            ends = [pool.submit(follow, follower) for follower in self._followers]
        return [end.result() for end in ends]

    def status(self) -> list[FollowStatus]:
        """Each follower's status now."""
        return [follower.status() for follower in self._followers]

    @property
    def dead_letters(self) -> list[Path]:
        """Each follower's file of dead letters, which exists if there are any."""
        return [follower.dead_letters for follower in self._followers]
