"""All that follows one generation of one index: one follower, or two, of which the second only takes what
computing time the first leaves."""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from signal import SIGTERM
from typing import Self

from opensearchpy import OpenSearch

from bridge.cluster import index as indices
from bridge.settings import IngestSettings
from ingest.follow.fields import steps
from ingest.follow.follower import Follower
from ingest.follow.generation import followed_generation
from ingest.follow.priority import Precedence, WaitingGenerator
from ingest.follow.status import FollowStatus, OnStatus
from ingest.signals import StopRequest
from ingest.stages.models import Models


class Followers:
    """Followers of one index, each at what comes after the one before it."""

    def __init__(
        self,
        client: OpenSearch,
        index: str,
        *,
        generation: int | None,
        models: Models,
        settings: IngestSettings,
        state_folder: Path,
        stop: StopRequest,
    ) -> None:
        """As for `Follower`, which says what is raised."""
        profile = followed_generation(indices.look(client, index), generation, models)
        first, *later = steps(profile)
        self._stops = [stop.part() for _ in (first, *later)]
        precedence = Precedence()
        follower = partial(Follower, client, index, generation=generation, settings=settings)
        self._followers: list[Follower] = [
            follower(fields=first, models=models, state_folder=state_folder, stop=self._stops[0], precedence=precedence)
        ]
        waiting = replace(models, generator=models.generator and WaitingGenerator(models.generator, precedence))
        for fields, part in zip(later, self._stops[1:], strict=True):
            before = self._followers[-1]
            self._followers.append(
                follower(fields=fields, models=waiting, state_folder=state_folder / fields, stop=part, after=before)
            )
        self._held = ExitStack()

    def __enter__(self) -> Self:
        """Takes the state folders.

        Raises:
            CheckpointUnusable: another follower holds one.
        """
        with ExitStack() as held:
            for follower in self._followers:
                held.enter_context(follower)
            self._held = held.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        """Gives them back."""
        self._held.close()

    def follow(self, *, once: bool = False, on_status: OnStatus | None = None) -> list[FollowStatus]:
        """Follows as `Follower.follow` does, all of them; where one ends, so do the others. `on_status` is called
        on several threads, and not at the same time."""
        if once:
            return [follower.follow(once=True, on_status=on_status) for follower in self._followers]
        one_by_one = threading.Lock()

        def tell(status: FollowStatus) -> None:
            if on_status is not None:
                with one_by_one:
                    on_status(status)

        def follow(follower: Follower) -> FollowStatus:
            try:
                return follower.follow(on_status=tell)
            finally:
                for stop in self._stops:
                    if stop.number is None:
                        stop.ask(SIGTERM)

        with ThreadPoolExecutor(len(self._followers), thread_name_prefix="follow") as pool:
            ends = [pool.submit(follow, follower) for follower in self._followers]
        return [end.result() for end in ends]

    def status(self) -> list[FollowStatus]:
        """How each stands now."""
        return [follower.status() for follower in self._followers]

    @property
    def dead_letters(self) -> list[Path]:
        """Their files of dead letters; each exists where there are any."""
        return [follower.dead_letters for follower in self._followers]
