"""Follows an index: what anybody writes to it is enriched a few seconds later.

Every change of a document has a sequence number, and each round reads the changes with higher numbers than the round
before saw: new documents, whole documents that an application replaced (our object with them), and partial updates,
whose old stamp no longer fits their text. Stamps show which of them need work, so reading one twice is harmless.
Numbers are only left behind once every copy of the shard shows them: see `bridge.cluster.shard_progress`.

What an index with a companion holds is only read, and what is made of it written to the companion.
"""

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Self

import msgspec
import structlog
from opensearchpy.exceptions import TransportError

from bridge.cluster import companion
from bridge.cluster import index as indices
from bridge.cluster.field_security import refuse_restricted
from bridge.cluster.shard_progress import IndexProgress, ShardProgress, index_progress
from bridge.errors import AnswerNotUnderstood, ClusterBlocked, ClusterUnreachable, IndexUnsuitable
from bridge.records import Document
from ingest.books.books import Books
from ingest.follow.fields import Fields, FollowedFields
from ingest.follow.state import FollowState, FollowStatus, OnStatus
from ingest.follow.sweep import Sweep
from ingest.job import Job
from ingest.runs.ingest import restore_settings
from ingest.runs.run import Run
from ingest.signals import StopRequest
from ingest.sources.index import IndexDocuments
from ingest.sources.source import SourceItem
from ingest.sources.versions import refuse_external_versions
from ingest.stages.stamps import ChangeFilter, stamp_within
from ingest.writing.pace import RunStopped, SearchLoad, retrying
from ingest.writing.writer import BulkLimits

log = structlog.get_logger(__name__)

ROUND_DOCUMENTS = 5000
"""Of each shard: few enough that a round ends soon, and its progress is saved."""

_AFTER_FAILURES_S = (0.0, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0)
"""Pause after so many failures in a row; the last one after more of them."""

# These errors pass by themselves. opensearch-py's own is what a cluster answers while it elects a manager.
PASSING = (ClusterUnreachable, ClusterBlocked, AnswerNotUnderstood, TransportError)


class Follower:
    """Makes fields of one generation of one index, round by round."""

    def __init__(
        self,
        job: Job,
        stop: StopRequest,
        *,
        fields: Fields = "all",
        after: "Follower | None" = None,
        while_busy: AbstractContextManager[object] | None = None,
    ) -> None:
        """Follows the generation of `job.profile`, whose index `job` names: the application's own, or the companion of
        `profile.beside`. Its state folder keeps how far that got, and without it everything is read once more. `after`
        is the follower whose fields come before these; `while_busy` is entered while there is work.

        Raises:
            IndexUnsuitable: the index cannot hold the fields of the profile, or an application numbers its versions;
                or the companion was made from an earlier index.
            AccessDenied: some documents or fields of the index are hidden from this user.
        """
        client, profile, settings = job.client, job.profile, job.settings
        written = indices.check(client, job.index, profile)
        state = indices.look(client, profile.beside) if profile.beside else written
        if profile.beside:
            refuse_restricted(client, state.name)
            if not companion.is_of(written, state):
                raise IndexUnsuitable(
                    f"{written.name} was made from an earlier index {state.name}: make it anew with `neural-bridge "
                    f"backfill {state.name}`"
                )
        else:
            refuse_external_versions(client, state, settings)
        self._job = job
        self._stop = stop
        self._after = after
        self._while_busy = while_busy or nullcontext()
        self._made = FollowedFields.of(fields, profile, settings)
        self._retry = BulkLimits.of(settings).retry
        self._source = IndexDocuments(
            client,
            state.name,
            [*profile.text_fields, *([] if profile.beside else [profile.stamp_field])],
            text_fields=profile.text_fields,
            image_field=profile.image_field,
            retry=self._retry,
            stopped=stop.stopped,
            no_external_versions=settings.external_versions == "detect" and not profile.beside,
            read_only=profile.beside is not None,
        )
        self._written_to, self._followed = indices.identity(written), indices.identity(state)
        both = f"{self._followed} in {self._written_to}" if profile.beside else self._followed
        self._state = FollowState(job.state_folder, index=both, recipe=self._made.recipe)
        self._load = SearchLoad(settings.max_search_ms)
        self.up_to_date_at = time.monotonic()
        """On the monotonic clock: what was written before then has its fields."""
        self._waiting: str | None = None
        self._left = self._is_done = False
        self._failures, self._not_before = 0, 0.0
        self._run: Run | None = None
        self._run_job = replace(
            job, index=written.name, profile=self._made.profile, from_start=True, stopped=stop.stopped, on_progress=None
        )
        self._books = Books(self._run_job, self._source, index_identity=both, recipe=self._made.recipe, in_place=True)
        self._stamps_of = self._stamps_read(written.name)
        # Only whoever compares documents with the companion may delete there: another would delete between the two.
        sweeps = profile.beside is not None and after is None
        self._sweep = Sweep(self._run_job, self._source, self._state) if sweeps else None
        self._name = state.name

    def __enter__(self) -> Self:
        """Locks the state folder.

        Raises:
            CheckpointUnusable: another follower has locked it.
        """
        self._books.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        """Unlocks the state folder."""
        self._books.__exit__(*error)

    def follow(self, *, once: bool = False, on_status: OnStatus | None = None) -> FollowStatus:
        """Follows until a signal comes, or with `once` until everything is enriched that was written before it began.

        Raises:
            IndexUnsuitable: the index or its generation is gone, or the name stands for another one now.
            AccessDenied: a killed run changed the index's settings, and this user may not restore them.
            LedgerUnbalanced, IngestError: a document is unaccounted for, or too many are dead letters.
            BridgeError: with `once`, also what would pass by itself.
        """
        while True:
            began = time.monotonic()
            more = self.turn(once=once)
            if on_status is not None:
                on_status(self.status())
            if self._stop.number is not None or (once and self._is_done):
                return self.status()
            if not more:
                pause_s = max(self._job.settings.follow_interval_s, self._not_before - began)
                self._stop.stopped.wait(max(0.0, pause_s - (time.monotonic() - began)))

    def turn(self, *, once: bool = False) -> bool:
        """One round, or none if one failed just now; whether another is worth while at once. `once` as for `follow`,
        which says what is raised."""
        if time.monotonic() < self._not_before:
            return False
        try:
            if self._run is None:
                # A run that was killed may have turned refreshing off: no search would see what is written here.
                restore_settings(self._job.client, self._run_job.index)
                self._run = Run(self._run_job, self._books, in_place=self._in_place, made_by=self._made.recipe)
            caught_up = self._round(self._run)
        except PASSING as error:
            if once:
                raise
            # A run that fails stops itself; only a signal stops the follower.
            if self._stop.resume():
                log.warning("follow_round_failed", index=self._name, error=str(error))
                self._waiting = f"the cluster: {error}"
                self._failures += 1
                self._not_before = time.monotonic() + _AFTER_FAILURES_S[: self._failures + 1][-1]
                self._run = None
            return False
        except RunStopped:
            # Asked to stop while the cluster was asked again: what it did not answer is left to the next start.
            if self._stop.number is None:
                raise
            return False
        self._failures = 0
        self._is_done = caught_up and not self._left and not self._sweeps
        return not self._waiting and (not caught_up or (once and self._sweeps))

    def status(self) -> FollowStatus:
        """The follower's status now."""
        lag_s = time.monotonic() - self.up_to_date_at
        # In the middle of a round, `ledger.read` is that of the round before.
        ledger = msgspec.structs.replace(self._books.ledger, read=self._books.ledger.answered)
        profile, removed = self._made.profile, self._sweep.removed if self._sweep else 0
        return FollowStatus(self._name, profile.generation, self._made.fields, lag_s, ledger, self._waiting, removed)

    def seen(self, shard: int) -> int:
        """The sequence number of the shard up to which all has its fields."""
        return self._state.seen(shard)

    @property
    def dead_letters(self) -> Path:
        """The file of dead letters; it exists if there are any."""
        return self._books.dead_letters

    @property
    def _in_place(self) -> bool:
        return self._job.profile.beside is None

    @property
    def _sweeps(self) -> bool:
        return self._sweep is not None and self._sweep.is_due

    def _round(self, run: Run) -> bool:
        """Enriches what changed; whether all is enriched now."""
        began_at = self._after.up_to_date_at if self._after else time.monotonic()
        progress = self._progress()
        limits = {number: self._limit(number, shard) for number, shard in progress.shards.items()}
        behind = {number: limit for number, limit in limits.items() if limit > self._state.seen(number)}
        slow = self._load.too_high(progress)
        self._waiting = slow if behind else None
        if self._waiting:
            return False
        if behind or self._sweeps:
            self._check_generation()
        if behind:
            self._source.refresh()
            with self._while_busy:
                if not self._enrich(run, behind, progress):
                    return False
        if self._sweep is not None:
            self._sweep.go_on()
        self._left = self._after is None and any(limits[n] < shard.last for n, shard in progress.shards.items())
        if not self._left:
            self.up_to_date_at = began_at
        return True

    def _limit(self, number: int, shard: ShardProgress) -> int:
        """The highest sequence number of a shard that this round may go to.

        The document of a companion must be of a change that stays, and in the second step of one whose vectors are
        made; in place a write is refused unless it is so.
        """
        if self._in_place:
            return shard.last
        return min(shard.checkpoint, self._after.seen(number) if self._after else sys.maxsize)

    def _progress(self) -> IndexProgress:
        """The progress of the index, which must be the same one as before."""
        progress = index_progress(self._job.client, self._job.profile.beside or self._job.index)
        found = f"{progress.name} ({progress.uuid})"
        if found != self._followed:
            raise IndexUnsuitable(
                f"{self._job.index} was index {self._followed} and is {found} now: start the follower again"
            )
        return progress

    def _check_generation(self) -> None:
        """A generation that was dropped must not come back."""
        generation = self._made.profile.generation
        state = indices.look(self._job.client, self._run_job.index)
        if state.generation(generation) is None or indices.identity(state) != self._written_to:
            raise IndexUnsuitable(
                f"generation {generation} of {self._name} was dropped or undone: there is nothing to follow any more"
            )

    def _enrich(self, run: Run, behind: Mapping[int, int], progress: IndexProgress) -> bool:
        """Enriches the changes of each shard up to a sequence number; whether these were all."""
        last_read: dict[int, int | None] = {}
        n_read: Counter[int] = Counter()
        run.send_items(self._changes(behind, last_read, n_read), changed=self._needed)
        # Whoever changed a document meanwhile gave it a higher number: the next round reads it.
        self._books.conflicts.clear()
        if self._stop.stopped.is_set():
            return False
        self._books.complete()
        for number, limit in behind.items():
            last = last_read[number]
            to = min(limit if last is None else last, progress.shards[number].checkpoint)
            if not self._in_place and n_read[number] < to - self._state.seen(number):
                (self._after or self)._state.note_deletions()
            self._state.advance(number, to)
        self._state.save()
        return all(last is None for last in last_read.values())

    def _changes(
        self, behind: Mapping[int, int], last_read: dict[int, int | None], n_read: Counter[int]
    ) -> Iterator[SourceItem]:
        """The next changes of each shard, up to a sequence number. Afterwards `n_read` has their numbers, and
        `last_read` the sequence number of each shard's last one, None if there are no more."""
        for number, limit in behind.items():
            changes = self._source.changes(number, after=self._state.seen(number))
            last_read[number] = None
            for item in islice(changes, ROUND_DOCUMENTS):
                if item.position.offset > limit:
                    last_read[number] = None
                    break
                n_read[number] += 1
                last_read[number] = item.position.offset
                yield item
            else:
                if n_read[number] < ROUND_DOCUMENTS:
                    last_read[number] = None
            changes.close()

    def _stamps_read(self, written: str) -> Callable[[Sequence[Document]], Sequence[str | None]]:
        """Gives the stamps of documents: those that were read with them, or those in the companion."""
        profile = self._job.profile
        if profile.beside is None:
            return lambda documents: [stamp_within(each.body, profile.stamp_field) for each in documents]
        stamps = ChangeFilter(self._job.client, written, profile, self._made.recipe).stamps
        return retrying(stamps, self._retry, self._stop.stopped)

    def _needed(self, documents: Sequence[Document]) -> list[Document]:
        """Those of the documents that need the fields which this follower makes."""
        return self._made.needed(documents, self._stamps_of(documents))
