"""Follows an index: what anybody writes to it is enriched a few seconds later.

Every change of a document has a sequence number, and each round reads what has higher ones than the round
before had seen: new documents, whole documents that an application replaced (our object with them), and
partial updates, whose old stamp no longer fits their text. Stamps tell which of them need work, so reading
one twice is harmless. Numbers are only left behind once every copy of the shard shows them: see
`bridge.cluster.shard_progress`.
"""

import logging
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Self

import msgspec
from opensearchpy import OpenSearch
from opensearchpy.exceptions import TransportError

from bridge.cluster import index as indices
from bridge.cluster.shard_progress import IndexProgress, index_progress
from bridge.errors import AnswerNotUnderstood, ClusterBlocked, ClusterUnreachable
from bridge.settings import IngestSettings
from ingest.books.accounts import Accounts
from ingest.follow.fields import Fields, FollowedFields
from ingest.follow.generation import followed_generation, still_standing, still_the_same
from ingest.follow.priority import Precedence
from ingest.follow.state import FollowState
from ingest.follow.status import FollowStatus, OnStatus
from ingest.runs.run import Run
from ingest.signals import StopRequest
from ingest.sources.index import IndexDocuments
from ingest.sources.source import SourceItem
from ingest.stages.models import Models
from ingest.stages.stamps import text_stamp
from ingest.writing.actions import update_action
from ingest.writing.rate_limit import Pace
from ingest.writing.search_load import SearchLoad
from ingest.writing.writer import BulkLimits, BulkWriter

log = logging.getLogger(__name__)

ROUND_DOCUMENTS = 5000
"""Of each shard: few enough that a round ends soon, and what it did is remembered."""

_AFTER_FAILURES_S = (0.0, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0)
"""How long it waits after so many failures in a row; after more of them as long as after the last."""

# What passes by itself. opensearch-py's own error is what a cluster answers while it elects a manager.
_PASSING = (ClusterUnreachable, ClusterBlocked, AnswerNotUnderstood, TransportError)


class Follower:
    """Makes fields of one generation of one index, round by round."""

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
        fields: Fields = "all",
        after: "Follower | None" = None,
        precedence: Precedence | None = None,
    ) -> None:
        """`generation` None follows the serving one. The state folder keeps how far it got; without it, it
        reads everything once more. `after` is the follower that makes what `fields` come after; `precedence` is entered
        while there is work.

        Raises:
            IndexUnsuitable: the index has no such generation, or other models made it.
        """
        state = indices.look(client, index)
        profile = followed_generation(state, generation, models)
        indices.check(client, index, profile)
        self._made = FollowedFields.of(fields, profile, settings)
        self._after = after
        self._precedence = precedence or Precedence()
        self._client = client
        self._asked = index
        self._models = models
        self._settings = settings
        self._stop = stop
        self._limits = BulkLimits.of(settings)
        texts = profile.text_fields
        self._source = IndexDocuments(
            client,
            state.name,
            [*texts, profile.stamp_field],
            text_fields=texts,
            retry=self._limits.retry,
            stopped=stop.stopped,
        )
        self._state = FollowState(state_folder, index=indices.identity(state), recipe=self._made.recipe)
        self._load = SearchLoad(settings.max_search_ms)
        self.up_to_date_at = time.monotonic()
        """On the monotonic clock: what was written before then has its fields."""
        self._waiting: str | None = None
        self._accounts = Accounts(
            state_folder,
            self._source,
            index=state.name,
            index_identity=indices.identity(state),
            recipe=self._made.recipe,
            from_start=True,
            partial=True,
        )
        self._name, self._uuid = state.name, str(state.settings.get("uuid"))

    def __enter__(self) -> Self:
        """Takes the state folder.

        Raises:
            CheckpointUnusable: another follower holds it.
        """
        self._accounts.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        """Gives the state folder back."""
        self._accounts.__exit__(*error)

    def follow(self, *, once: bool = False, on_status: OnStatus | None = None) -> FollowStatus:
        """Follows until a signal comes, or for one round that ends with everything enriched which had been
        written when it began.

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
                log.warning("follow %s: %s; trying again", self._name, error)
                self._waiting = f"the cluster: {error}"
                failures += 1
                caught_up = False
                self._begin()
            if on_status is not None:
                on_status(self.status())
            if self._stop.number is not None or (once and caught_up):
                return self.status()
            if caught_up or self._waiting:
                pause_s = max(self._settings.follow_interval_s, _AFTER_FAILURES_S[: failures + 1][-1])
                self._stop.stopped.wait(max(0.0, pause_s - (time.monotonic() - began)))

    def status(self) -> FollowStatus:
        """How it stands now."""
        lag_s = time.monotonic() - self.up_to_date_at
        ledger = msgspec.structs.replace(self._accounts.ledger)
        return FollowStatus(self._name, self._made.profile.generation, self._made.fields, lag_s, ledger, self._waiting)

    @property
    def dead_letters(self) -> Path:
        """The file of dead letters; it exists where there are any."""
        return self._accounts.dead_letters

    def _begin(self) -> None:
        self._answered_before = self._accounts.ledger.answered
        self._run = Run(
            self._accounts,
            self._made.profile,
            self._models,
            self._settings,
            BulkWriter(self._client, self._name, self._limits, stopped=self._stop.stopped),
            stamp=lambda document: text_stamp(self._made.recipe, document),
            action=update_action,
            stopped=self._stop.stopped,
            pace=Pace.of(self._settings, self._client, self._name, stopped=self._stop.stopped),
        )

    def _round(self) -> bool:
        """Enriches what changed; whether all is enriched now."""
        asked_at = self._after.up_to_date_at if self._after else time.monotonic()
        progress = index_progress(self._client, self._asked)
        still_the_same(progress, name=self._name, uuid=self._uuid, asked=self._asked)
        behind = [number for number, shard in progress.shards.items() if shard.last > self._state.seen(number)]
        slow = self._load.too_high(progress)
        self._waiting = slow if behind else None
        if self._waiting:
            return False
        if behind:
            still_standing(self._client, self._name, self._made.profile.generation)
            self._client.indices.refresh(index=self._name)
            with self._precedence:
                if not self._enrich(behind, progress):
                    return False
        self.up_to_date_at = asked_at
        return True

    def _enrich(self, behind: Sequence[int], progress: IndexProgress) -> bool:
        last_read: dict[int, int | None] = {}
        self._run.send(
            self._changes(behind, last_read),
            changed=self._made.needs,
            on_progress=lambda _: None,
            total=None,
        )
        # Whoever changed a document meanwhile gave it a higher number: the next round reads it.
        self._run.conflicts.clear()
        if self._stop.stopped.is_set():
            return False
        self._accounts.complete(read=self._answered_before + self._run.read)
        for number, last in last_read.items():
            checkpoint = progress.shards[number].checkpoint
            self._state.advance(number, checkpoint if last is None else min(last, checkpoint))
        self._state.save()
        return all(last is None for last in last_read.values())

    def _changes(self, behind: Sequence[int], last_read: dict[int, int | None]) -> Iterator[SourceItem]:
        """The next changes of each shard; `last_read` then holds the number of the last one, None where there
        are no more."""
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
