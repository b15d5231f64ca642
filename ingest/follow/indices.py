"""The indices that a name, an alias, a data stream or a pattern stands for, now and later, and the followers of each.

An index is followed where its profile is: in place, or beside it in its companion. One that comes, as by a rollover,
gets a companion with the profile that the others have; one that is deleted loses its companion.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import msgspec
import structlog
from opensearchpy import OpenSearch

from bridge.cluster import companion
from bridge.cluster import index as indices
from bridge.cluster.connection import GONE
from bridge.cluster.index import IndexState
from bridge.errors import IndexUnsuitable
from bridge.profile import IndexProfile
from bridge.settings import IngestSettings
from ingest.follow.fields import followed_profile
from ingest.follow.follower import PASSING
from ingest.follow.pair import FollowerPair, Priority, follow_together
from ingest.follow.state import FollowStatus, OnStatus
from ingest.job import Job
from ingest.signals import StopRequest
from ingest.stages.models import Models

log = structlog.get_logger(__name__)

_AFTER_REFUSAL_S = 30.0
"""An index that cannot be followed yet is looked at again then: it may be enriched, or get its text fields."""


@dataclass(frozen=True, slots=True)
class FollowRequest:
    """What to follow, and where its state is kept.

    - `expression`: an index, an alias, a data stream or a pattern, or several with commas between.
    - `folder`: the state folder for a generation of an index.
    - `generation`: None for the serving one.
    - `wanted`: "beside", "in_place", or None for where the profile is.
    """

    expression: str
    client: OpenSearch
    settings: IngestSettings
    prefix: str
    folder: Callable[[str, int], Path]
    generation: int | None = None
    wanted: str | None = None

    @property
    def is_pattern(self) -> bool:
        """Whether more indices may come that the expression stands for, although there is none now."""
        return any(character in self.expression for character in "*,")

    def now(self) -> dict[str, str]:
        """The indices of now: names by identity.

        Raises:
            AccessDenied: this user may not know of them.
        """
        return {identity: name for name, identity in indices.resolve(self.client, self.expression).items()}

    def holder(self, source: IndexState) -> IndexState | None:
        """What holds the profile of an index: the index itself or its companion; None if neither does.

        Raises:
            IndexUnsuitable: the index is a companion, or is enriched another way than is wanted.
        """
        indices.refuse_companion(source)
        both = companion.find_both(self.client, source.name, self.prefix) if source.profile is None else (None, None)
        ours = both[0]
        if self.generation is not None:
            ours = next((each for each in both if each and each.generation(self.generation)), None)
        begun = "in_place" if source.profile else "beside" if ours else None
        if begun and self.wanted not in (None, begun):
            raise IndexUnsuitable(
                f"index {source.name} is enriched {begun.replace('_', ' ')} already: leave out "
                f"--{(self.wanted or '').replace('_', '-')}, or begin anew after `neural-bridge undo {source.name}`"
            )
        return source if source.profile else ours

    def profiles(self) -> list[IndexProfile]:
        """The profiles that the indices of now have.

        Raises:
            IndexUnsuitable: none has any.
        """
        holders = [self.holder(indices.look(self.client, name)) for name in sorted(self.now().values())]
        found = [holder.profile for holder in holders if holder and holder.profile]
        if not found:
            raise self.nothing()
        return found

    def nothing(self) -> IndexUnsuitable:
        """There is nothing to follow."""
        return IndexUnsuitable(
            f"{self.expression}: there is no open, enriched index of this name to follow: begin with `neural-bridge "
            f"backfill {self.expression}`"
        )


class FollowedIndices:
    """The followers of all indices that an expression stands for."""

    def __init__(self, request: FollowRequest, models: Models, stop: StopRequest) -> None:
        self._request = request
        self._models = models
        self._stop = stop.part()
        self._priority = Priority()
        self._pairs: dict[str, FollowerPair] = {}
        """By identity of the index."""
        self._names: dict[str, str] = {}
        """Of the indices that are or were followed, until it is known what became of them."""
        self._refused: dict[str, tuple[str, float]] = {}
        """By identity of the index: why, and until when on the monotonic clock."""
        self._ended: list[FollowerPair] = []
        self._template: IndexProfile | None = None
        self._looked_at = 0.0

    def __enter__(self) -> Self:
        """Opens the followers of the indices of now.

        Raises:
            IndexUnsuitable: none of them can be followed.
            BridgeError: what `FollowerPair` says.
        """
        try:
            self._look()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Ends them, and unlocks their state folders."""
        for identity in list(self._pairs):
            self._close(identity)

    def follow(self, *, once: bool = False, on_status: OnStatus | None = None) -> list[FollowerPair]:
        """Follows until a signal comes, or with `once` until everything is enriched that was written before it began;
        the followers of all indices that were followed.

        Raises:
            IndexUnsuitable: an index is gone, or cannot be followed any more; unless others may still be.
            BridgeError: what `Follower.follow` says.
        """
        if once:
            for pair in self._pairs.values():
                pair.follow(once=True, on_status=on_status)
        else:
            follow_together(self._now, self._stop, self._request.settings.follow_interval_s, on_status, self._failed)
        return [*self._ended, *self._pairs.values()]

    def status(self) -> list[FollowStatus]:
        """The status now of each follower at work."""
        return [status for pair in list(self._pairs.values()) for status in pair.status()]

    def _now(self) -> Sequence[FollowerPair]:
        """The followers of the indices of now."""
        if time.monotonic() - self._looked_at >= self._request.settings.follow_interval_s:
            try:
                self._look()
            except PASSING as error:
                log.warning("follow_indices_unknown", expression=self._request.expression, error=str(error))
        return list(self._pairs.values())

    def _look(self) -> None:
        """Opens the followers of indices that came, and closes those of indices that went."""
        now = self._request.now()
        for identity in self._names.keys() - now.keys():
            if identity in self._pairs:
                self._close(identity)
            self._forget(identity)
        without = [each for each in self._to_open(now) if not self._opened(each, now[each], only_enriched=True)]
        for identity in without:
            self._opened(identity, now[identity], only_enriched=False)
        self._looked_at = time.monotonic()
        if not self._pairs and not (self._request.is_pattern and self._ended):
            raise self._nothing(now)

    def _to_open(self, now: dict[str, str]) -> list[str]:
        began = time.monotonic()
        new = [each for each in now if each not in self._pairs and began >= self._refused.get(each, ("", 0.0))[1]]
        return sorted(new, key=now.__getitem__)

    def _nothing(self, now: dict[str, str]) -> IndexUnsuitable:
        if reasons := [self._refused[identity][0] for identity in now if identity in self._refused]:
            return IndexUnsuitable("; ".join(reasons))
        return IndexUnsuitable(f"{self._request.expression} is gone: it was deleted while it was followed; {GONE}")

    def _opened(self, identity: str, index: str, *, only_enriched: bool) -> bool:
        """Opens the followers of an index, unless it is not enriched yet and only enriched ones are opened; False
        then."""
        request = self._request
        try:
            source = indices.look(request.client, index)
            holder = request.holder(source)
            if holder is None or (holder is not source and not companion.is_of(holder, source)):
                if only_enriched:
                    return False
                holder = self._enrichable(source, holder)
            profile = followed_profile(holder, request.generation, self._models)
            folder = request.folder(index, profile.generation)
            job = Job(holder.name, profile, self._models, request.client, request.settings, folder)
            pair = FollowerPair(job, self._stop, self._priority)
        except IndexUnsuitable as error:
            self._refuse(identity, error, time.monotonic() + _AFTER_REFUSAL_S)
            return True
        self._pairs[identity] = pair.__enter__()
        self._names[identity] = index
        self._template = profile
        if self._looked_at:
            log.info("follow_index_came", index=index, profile_in=holder.name)
        return True

    def _enrichable(self, source: IndexState, old: IndexState | None) -> IndexState:
        """The index or its new companion, which holds the profile that the others have, or that an earlier index of
        the name had.

        Raises:
            IndexUnsuitable: there is no such profile, or the index cannot have it.
        """
        profile = old.profile if old else self._template
        if profile is None:
            raise self._request.nothing()
        client, prefix = self._request.client, self._request.prefix
        if self._request.wanted == "beside" or (self._request.wanted is None and profile.beside):
            found = companion.of(client, source, profile, prefix)
            return found or companion.create(client, source, profile, prefix)
        if self._request.wanted is None:
            raise IndexUnsuitable(
                f"index {source.name} is not enriched: begin with `neural-bridge backfill {source.name}`, or let the "
                f"follower do that with --in-place or --beside"
            )
        return indices.extend(client, source.name, msgspec.structs.replace(profile, beside=None))

    def _close(self, identity: str) -> None:
        pair = self._pairs.pop(identity)
        pair.__exit__()
        self._ended.append(pair)

    def _forget(self, identity: str) -> None:
        """Deletes the companion of an index that was deleted."""
        client, name = self._request.client, self._names[identity]
        deleted = indices.find(client, name) is None
        if deleted and self._request.wanted != "in_place":
            companion.remove(client, name, self._request.prefix)
        del self._names[identity]
        log.info("follow_index_gone", index=name, deleted=deleted)

    def _refuse(self, identity: str, error: IndexUnsuitable, until: float) -> None:
        if self._refused.get(identity, ("", 0.0))[0] != str(error):
            log.warning("follow_index_refused", index=identity, error=str(error))
        self._refused[identity] = (str(error), until)

    def _failed(self, pair: FollowerPair, error: IndexUnsuitable) -> None:
        """Closes the followers of an index that cannot be followed any more.

        Raises:
            IndexUnsuitable: no other index is left.
        """
        identity = next((each for each, one in self._pairs.items() if one is pair), None)
        if identity is None:
            return
        self._close(identity)
        if identity in self._request.now():
            # As after `undo`: it is not made anew.
            self._refuse(identity, error, float("inf"))
        self._look()
