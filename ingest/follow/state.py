"""Where a follower is: how far it got, per shard and on disk, and what it reports of itself."""

import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import msgspec
import structlog

from bridge.errors import CheckpointUnusable
from ingest.books.ledger import Ledger
from ingest.books.state_folder import load_state, save
from ingest.follow.fields import Fields
from ingest.sources.index import BEFORE_THE_FIRST

log = structlog.get_logger(__name__)

_FILE = "followed"


class FollowStatus(msgspec.Struct, frozen=True):
    """What was written more than `lag_s` ago has the fields that the follower makes. `ledger` counts what it read
    since it started; `waiting` says why it waits, None if it works or has nothing to do. `removed`: documents that left
    the companion of `index` since the application had deleted them."""

    index: str
    generation: int
    fields: Fields
    lag_s: float
    ledger: Ledger
    waiting: str | None = None
    removed: int = 0


OnStatus = Callable[[FollowStatus], None]


class _Saved(msgspec.Struct, frozen=True):
    """The file's content. `seen`: by shard, the sequence number up to which all is enriched. `deletions`: the
    application may have deleted documents since the last search for these began. `sweep`: by shard of the companion,
    the sequence number up to which that search got; without the shards that it is through with."""

    index: str
    recipe: str
    seen: dict[int, int] = {}
    deletions: bool = True
    sweep: dict[int, int] = {}


class FollowState:
    """Sequence numbers up to which the changes of each shard are enriched by one recipe.

    A file that is lost, damaged, or of another index or recipe only costs reading all documents once: their
    stamps show what is to be done. Threads may share a state.
    """

    def __init__(self, folder: Path, *, index: str, recipe: str) -> None:
        """`index` is an index's identity."""
        self._path = folder / _FILE
        self._lock = threading.Lock()
        self._saved = _Saved(index, recipe)
        try:
            saved = load_state(self._path, _Saved)
        except CheckpointUnusable as error:
            log.warning("follow_state_unusable", index=index, error=str(error), consequence="reads all documents once")
            saved = None
        if saved is not None and (saved.index, saved.recipe) == (index, recipe):
            self._saved = saved

    def seen(self, shard: int) -> int:
        """The number up to which this shard's changes are enriched; -1 if it is not known."""
        return self._saved.seen.get(shard, BEFORE_THE_FIRST)

    def advance(self, shard: int, number: int) -> None:
        """Notes that all changes up to `number` are enriched. Numbers never go back."""
        with self._lock:
            seen = {**self._saved.seen, shard: max(number, self.seen(shard))}
            self._saved = msgspec.structs.replace(self._saved, seen=seen)

    @property
    def sweep(self) -> Mapping[int, int]:
        """The shards of the companion that have to be searched for documents which the application deleted, and the
        sequence number up to which each was."""
        return self._saved.sweep

    @property
    def deletions(self) -> bool:
        """Whether the application may have deleted documents that no sweep looks for yet."""
        return self._saved.deletions

    def note_deletions(self) -> None:
        """Notes that the application may have deleted documents, and saves that."""
        with self._lock:
            self._saved = msgspec.structs.replace(self._saved, deletions=True)
            save(self._path, self._saved)

    def begin_sweep(self, shards: Iterable[int]) -> None:
        """Notes that these shards of the companion have to be searched for all that was deleted so far."""
        sweep = dict.fromkeys(shards, BEFORE_THE_FIRST)
        with self._lock:
            self._saved = msgspec.structs.replace(self._saved, deletions=False, sweep=sweep)

    def swept(self, shard: int, number: int | None) -> None:
        """Notes how far the sweep of a shard got; None ends it."""
        with self._lock:
            others = {each: to for each, to in self._saved.sweep.items() if each != shard}
            sweep = others if number is None else {shard: number, **others}
            self._saved = msgspec.structs.replace(self._saved, sweep=sweep)

    def save(self) -> None:
        """Writes the file.

        Raises:
            IngestError: the disk refuses it.
        """
        with self._lock:
            save(self._path, self._saved)
