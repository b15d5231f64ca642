"""Follows an index: what anybody writes to it is enriched a few seconds later.

Every change of a document has a sequence number, and each round reads the changes with higher numbers than the round
before saw: new documents, whole documents that an application replaced (our object with them), and partial updates,
whose old stamp no longer fits their text. Stamps show which of them need work, so reading one twice is harmless.
Numbers are only left behind once every copy of the shard shows them: see `bridge.cluster.shard_progress`.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Self

import msgspec
import structlog
from opensearchpy.exceptions import TransportError

from bridge.cluster import index as indices
from bridge.cluster.shard_progress import IndexProgress, index_progress
from bridge.errors import AnswerNotUnderstood, ClusterBlocked, ClusterUnreachable, IndexUnsuitable
from ingest.books.books import Books
from ingest.follow.fields import Fields, FollowedFields
from ingest.follow.state import FollowState, FollowStatus, OnStatus
from ingest.job import Job
from ingest.runs.run import Run
from ingest.signals import StopRequest
from ingest.sources.index import IndexDocuments
from ingest.sources.source import SourceItem
from ingest.sources.versions import refuse_external_versions
from ingest.writing.pace import SearchLoad
from ingest.writing.writer import BulkLimits

log = structlog.get_logger(__name__)

ROUND_DOCUMENTS = 5000
"""Of each shard: few enough that a round ends soon, and its progress is saved."""

_AFTER_FAILURES_S = (0.0, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0)
"""Pause after so many failures in a row; the last one after more of them."""

# These errors pass by themselves. opensearch-py's own is what a cluster answers while it elects a manager.
_PASSING = (ClusterUnreachable, ClusterBlocked, AnswerNotUnderstood, TransportError)


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
        """Follows the generation of `job.profile`; its state folder keeps how far that got, and without it everything
        is read once more. `after` is the follower whose fields come before these; `while_busy` is entered while there
        is work.

        Raises:
            IndexUnsuitable: the index cannot hold the fields of the profile, or an application numbers its versions.
        """
        state = indices.look(job.client, job.index)
        indices.check(job.client, job.index, job.profile)
        refuse_external_versions(job.client, state, job.settings)
        self._job = job
        self._stop = stop
        self._after = after
        self._while_busy = while_busy or nullcontext()
        self._made = FollowedFields.of(fields, job.profile, job.settings)
        texts = job.profile.text_fields
        self._source = IndexDocuments(
            job.client,
            state.name,
            [*texts, job.profile.stamp_field],
            text_fields=texts,
            retry=BulkLimits.of(job.settings).retry,
            stopped=stop.stopped,
            no_external_versions=job.settings.external_versions == "detect",
        )
        identity = indices.identity(state)
        self._state = FollowState(job.state_folder, index=identity, recipe=self._made.recipe)
        self._load = SearchLoad(job.settings.max_search_ms)
        self.up_to_date_at = time.monotonic()
        """On the monotonic clock: what was written before then has its fields."""
        self._waiting: str | None = None
        self._run_job = replace(
            job, index=state.name, profile=self._made.profile, from_start=True, stopped=stop.stopped, on_progress=None
        )
        self._books = Books(
            self._run_job, self._source, index_identity=identity, recipe=self._made.recipe, in_place=True
        )
        self._name, self._uuid = state.name, str(state.settings.get("uuid"))

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
            LedgerUnbalanced, IngestError: a document is unaccounted for, or too many are dead letters.
            BridgeError: with `once`, also what would pass by itself.
        """
        failures = 0
        self._begin()
        while True:
            began = time.monotonic()
            try:
                caught_up = self._round()
                failures = 0
            except _PASSING as error:
                if once:
                    raise
                # A run that fails stops itself; only a signal stops the follower.
                if not self._stop.resume():
                    return self.status()
                log.warning("follow_round_failed", index=self._name, error=str(error))
                self._waiting = f"the cluster: {error}"
                failures += 1
                caught_up = False
                self._begin()
            if on_status is not None:
                on_status(self.status())
            if self._stop.number is not None or (once and caught_up):
                return self.status()
            if caught_up or self._waiting:
                pause_s = max(self._job.settings.follow_interval_s, _AFTER_FAILURES_S[: failures + 1][-1])
                self._stop.stopped.wait(max(0.0, pause_s - (time.monotonic() - began)))

    def status(self) -> FollowStatus:
        """The follower's status now."""
        lag_s = time.monotonic() - self.up_to_date_at
        # In the middle of a round, `ledger.read` is that of the round before.
        ledger = msgspec.structs.replace(self._books.ledger, read=self._books.ledger.answered)
        return FollowStatus(self._name, self._made.profile.generation, self._made.fields, lag_s, ledger, self._waiting)

    @property
    def dead_letters(self) -> Path:
        """The file of dead letters; it exists if there are any."""
        return self._books.dead_letters

    def _begin(self) -> None:
        self._run = Run(self._run_job, self._books, in_place=True, made_by=self._made.recipe)

    def _round(self) -> bool:
        """Enriches what changed; whether all is enriched now."""
        began_at = self._after.up_to_date_at if self._after else time.monotonic()
        progress = self._progress()
        behind = [number for number, shard in progress.shards.items() if shard.last > self._state.seen(number)]
        slow = self._load.too_high(progress)
        self._waiting = slow if behind else None
        if self._waiting:
            return False
        if behind:
            self._check_generation()
            self._job.client.indices.refresh(index=self._name)
            with self._while_busy:
                if not self._enrich(behind, progress):
                    return False
        self.up_to_date_at = began_at
        return True

    def _progress(self) -> IndexProgress:
        """The progress of the index, which must be the same one as before."""
        progress = index_progress(self._job.client, self._job.index)
        if (progress.name, progress.uuid) != (self._name, self._uuid):
            raise IndexUnsuitable(
                f"{self._job.index} was index {self._name} ({self._uuid}) and is {progress.name} ({progress.uuid}) "
                f"now: start the follower again"
            )
        return progress

    def _check_generation(self) -> None:
        """A generation that was dropped must not come back."""
        generation = self._made.profile.generation
        if indices.look(self._job.client, self._name).generation(generation) is None:
            raise IndexUnsuitable(
                f"generation {generation} of {self._name} was dropped or undone: there is nothing to follow any more"
            )

    def _enrich(self, behind: Sequence[int], progress: IndexProgress) -> bool:
        last_read: dict[int, int | None] = {}
        self._run.send_items(self._changes(behind, last_read), changed=self._made.needs)
        # Whoever changed a document meanwhile gave it a higher number: the next round reads it.
        self._books.conflicts.clear()
        if self._stop.stopped.is_set():
            return False
        self._books.complete()
        for number, last in last_read.items():
            checkpoint = progress.shards[number].checkpoint
            self._state.advance(number, checkpoint if last is None else min(last, checkpoint))
        self._state.save()
        return all(last is None for last in last_read.values())

    def _changes(self, behind: Sequence[int], last_read: dict[int, int | None]) -> Iterator[SourceItem]:
        """The next changes of each shard; `last_read` then has the number of each shard's last one, None if there are
        no more."""
        for number in behind:
            n_read = 0
            changes = self._source.changes(number, after=self._state.seen(number))
            for item in islice(changes, ROUND_DOCUMENTS):
                n_read += 1
                last_read[number] = item.position.offset
                yield item
            changes.close()
            if n_read < ROUND_DOCUMENTS:
                last_read[number] = None
