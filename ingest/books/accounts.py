"""The books of a run: ledger, dead letters and checkpoint, kept in step.

Nothing counts before it is safe: dead letters are on disk before their batch is booked, and a checkpoint
speaks only of batches that are booked.
"""

import time
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import msgspec

from bridge.errors import CheckpointUnusable
from ingest.books.checkpoint import Checkpoint, load, locked, save
from ingest.books.dead_letters import DeadLetters
from ingest.books.ledger import Failure, Ledger, Outcome
from ingest.sources.source import Source, SourceItem

CHECKPOINT = "checkpoint"
"""Its file's name in a state folder."""

_SAVE_EVERY_S = 1.0
_UNKNOWN = Failure("unknown", "no reason was given")


class Accounts:
    """One run's books in its state folder, which it holds for itself while it is entered."""

    def __init__(
        self,
        folder: Path,
        source: Source[Any],
        *,
        index: str,
        index_identity: str,
        recipe: str,
        from_start: bool,
        partial: bool = False,
        save_every_s: float = _SAVE_EVERY_S,
    ) -> None:
        """`index_identity` and `recipe` say what a checkpoint must belong to; `from_start` disregards it. `partial`:
        the source gives parts of documents that are in the index already."""
        self._folder = folder
        self._lock = locked(folder)
        self._source = source
        self._index = index
        self._index_identity = index_identity
        self._recipe = recipe
        self._from_start = from_start
        self._partial = partial
        self._save_every_s = save_every_s
        self._saved_at = time.monotonic()

    def __enter__(self) -> Self:
        """Takes the folder and goes on from its checkpoint.

        Raises:
            CheckpointUnusable: the folder is in use, or its checkpoint is damaged or of another run.
            IngestError: the dead letters cannot be written.
        """
        with ExitStack() as held:
            held.enter_context(self._lock)
            self._checkpoint = self._begin()
            self.ledger = msgspec.structs.replace(self._checkpoint.ledger)
            self.skipped = self.ledger.answered
            self._letters = DeadLetters(
                self._folder / self._checkpoint.dead_letters,
                self._index,
                keep_bytes=self._checkpoint.dead_letters_bytes,
                partial=self._partial,
            )
            held.callback(self._letters.close)
            # From here on a run that was cut off goes on with the same file of dead letters.
            self.save()
            self._held = held.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        """Gives the folder back."""
        self._held.close()

    @property
    def dead_letters(self) -> Path:
        """The file of this run's dead letters; it exists where there are any."""
        return self._letters.path

    def book(self, ended: Sequence[tuple[SourceItem, Outcome]]) -> None:
        """Books one batch, all of it or nothing, and saves a checkpoint now and then.

        Raises:
            IngestError: the disk refuses it; nothing of the batch is booked.
        """
        dead = [(item, outcome) for item, outcome in ended if outcome.kind == "dead_lettered"]
        for item, outcome in dead:
            self._letters.add(item, outcome.failure or _UNKNOWN)
        if dead:
            self._letters.flush()
        for _, outcome in ended:
            self.ledger.add(outcome.kind)
        if time.monotonic() - self._saved_at >= self._save_every_s:
            self.save()

    def save(self) -> None:
        """Saves how far the run got, where its source can be taken up again.

        Raises:
            IngestError: the disk refuses it; the checkpoint before it is intact.
        """
        if self._source.resumable:
            booked = msgspec.structs.replace(self.ledger, read=self.ledger.answered)
            self._checkpoint = msgspec.structs.replace(
                self._checkpoint, ledger=booked, dead_letters_bytes=self._letters.size
            )
            save(self._folder / CHECKPOINT, self._checkpoint)
        self._saved_at = time.monotonic()

    def complete(self, *, read: int) -> None:
        """Ends a run that got to the end of its source, of which it read `read` items.

        Raises:
            LedgerUnbalanced: some of them are unaccounted for; the checkpoint stays.
        """
        self.ledger.read = self.skipped + read
        self.ledger.check()
        (self._folder / CHECKPOINT).unlink(missing_ok=True)

    def _begin(self) -> Checkpoint:
        found = None if self._from_start else load(self._folder / CHECKPOINT)
        if found is not None:
            if not self._source.resumable:
                raise CheckpointUnusable(
                    f"{self._folder} holds the checkpoint of {found.source}, this run reads {self._source.identity}: "
                    f"name another --state-folder, or begin anew with --from-start"
                )
            found.belongs_to(source=self._source.identity, index=self._index_identity, recipe=self._recipe)
            return found
        run = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%f")
        return Checkpoint(
            run=run,
            source=self._source.identity,
            index=self._index_identity,
            recipe=self._recipe,
            ledger=Ledger(),
            dead_letters=f"dead-letters-{run}.jsonl",
        )
