"""How far a follower got, per shard: kept on disk, so that a restart goes on there."""

import logging
from pathlib import Path

import msgspec

from bridge.errors import CheckpointUnusable
from ingest.books.checkpoint import load_state, save
from ingest.sources.index import BEFORE_THE_FIRST

log = logging.getLogger(__name__)

_FILE = "followed"


class _Kept(msgspec.Struct, frozen=True):
    """What the file holds. `seen`: by shard, the sequence number up to which all is enriched."""

    index: str
    recipe: str
    seen: dict[int, int] = {}


class FollowState:
    """Sequence numbers up to which the changes of each shard are enriched by one recipe.

    A file that is lost, damaged, or of another index or recipe only costs reading all documents once: their
    stamps tell what is to be done.
    """

    def __init__(self, folder: Path, *, index: str, recipe: str) -> None:
        """`index` is an index's identity."""
        self._path = folder / _FILE
        self._kept = _Kept(index, recipe)
        try:
            found = load_state(self._path, _Kept)
        except CheckpointUnusable as error:
            log.warning("%s; all documents of %s are looked at once", error, index)
            found = None
        if found is not None and (found.index, found.recipe) == (index, recipe):
            self._kept = found

    def seen(self, shard: int) -> int:
        """The number up to which this shard's changes are enriched; -1 where that is not known."""
        return self._kept.seen.get(shard, BEFORE_THE_FIRST)

    def advance(self, shard: int, number: int) -> None:
        """Notes that all changes up to `number` are enriched. Numbers never go back."""
        seen = {**self._kept.seen, shard: max(number, self.seen(shard))}
        self._kept = msgspec.structs.replace(self._kept, seen=seen)

    def save(self) -> None:
        """Makes it safe.

        Raises:
            IngestError: the disk refuses it.
        """
        save(self._path, self._kept)
