"""The books of a run: ledger, dead letters and checkpoint in step, its limits, its progress and its report.

Nothing counts before it is safe: dead letters are on disk before their batch is booked, and a checkpoint covers
booked batches only.
"""

import time
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import msgspec

from bridge.errors import CheckpointUnusable, IngestError
from bridge.records import Document
from bridge.text import digest
from ingest.books.ledger import Failure, Ledger, Outcome, Progress, Report
from ingest.books.state_folder import (
    Checkpoint,
    DeadLetters,
    Watermark,
    load,
    load_state,
    locked,
    remove,
    save,
)
from ingest.job import Job
from ingest.sources.source import Source, SourceItem

CHECKPOINT = "checkpoint"
"""Its file's name in a state folder."""

_SAVE_EVERY_S = 1.0
_UNKNOWN = Failure("unknown", "no reason was given")

_VERSION_CONFLICT = "version_conflict_engine_exception"
"""The cluster's name for a write that does not hold for the version that is there now."""

_UNIFORM_FAILURE = 10
"""If a run's first documents all fail for one reason, and are so many, then the mapping is wrong and not they."""


class Books:
    """One run's books in its state folder, which is locked while the context is entered."""

    def __init__(
        self,
        job: Job,
        source: Source[Any],
        *,
        index_identity: str,
        recipe: str,
        in_place: bool = False,
        in_order: bool = True,
        save_every_s: float = _SAVE_EVERY_S,
    ) -> None:
        """A checkpoint must belong to `index_identity` and `recipe`. `in_place`: the source gives parts of documents
        that the index holds already. `in_order`: items end in the order of the source, as a checkpoint needs it."""
        self._job = job
        self._folder = job.state_folder
        self._lock = locked(job.state_folder)
        self._source = source
        self._index_identity = index_identity
        self._recipe = recipe
        self._in_place = in_place
        self._resumable = in_order and source.resumable
        self._from_start = job.from_start or not in_order
        self._save_every_s = save_every_s
        self._saved_at = self._began = time.monotonic()
        self._watermark = job.state_folder / f"watermark-{digest(source.identity.encode())}"
        self.without_text = self.duplicates = self.sent_again = self.removed = 0
        self.conflicts: list[Document] = []
        """Documents that somebody else changed between reading and writing."""

    def __enter__(self) -> Self:
        """Locks the folder and loads its checkpoint.

        Raises:
            CheckpointUnusable: the folder is in use, or its checkpoint is damaged or of another run.
            IngestError: the dead letters cannot be written.
        """
        with ExitStack() as stack:
            stack.enter_context(self._lock)
            self._checkpoint = self._begin()
            self.ledger = msgspec.structs.replace(self._checkpoint.ledger)
            self.skipped = self.ledger.answered
            self.mark = self._checkpoint.mark
            self._letters = DeadLetters(
                self._folder / self._checkpoint.dead_letters,
                self._job.profile.beside or self._job.index,
                keep_bytes=self._checkpoint.dead_letters_bytes,
                partial=self._in_place,
            )
            stack.callback(self._letters.close)
            # From here on a run that was cut off goes on with the same file of dead letters.
            self.save()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        """Closes the files and unlocks the folder."""
        self._stack.close()

    @property
    def dead_letters(self) -> Path:
        """The file of this run's dead letters; it exists if there are any."""
        return self._letters.path

    def book(self, ended: Sequence[tuple[SourceItem, Outcome]]) -> None:
        """Books one batch, all of it or nothing, and saves a checkpoint every second.

        Raises:
            IngestError: the disk is full, or the index refuses every document for one reason: nothing of the batch is
                booked; or there are more dead letters than `ingest.max_errors`.
        """
        self._refuse_uniform_failure([outcome for _, outcome in ended])
        dead = [(item, outcome) for item, outcome in ended if outcome.kind == "dead_lettered"]
        for item, outcome in dead:
            self._letters.add(item, outcome.failure or _UNKNOWN)
        if dead:
            self._letters.flush()
        for item, outcome in ended:
            self.ledger.add(outcome.kind)
            if outcome.failure and outcome.failure.kind == _VERSION_CONFLICT and isinstance(item, Document):
                self.conflicts.append(item)
        # A batch is a stretch of the source, in which items that needed no work come first.
        marked = [item.position for item, _ in ended if item.position.mark is not None]
        if marked:
            self.mark = max(marked, key=lambda position: position.offset).mark
        if time.monotonic() - self._saved_at >= self._save_every_s:
            self.save()
        self._check_dead_letters()

    def show(self, *, read: int, expanded: int, embedded: int) -> None:
        """Reports the progress: how many items of this run have passed each stage."""
        if self._job.on_progress is not None:
            seconds = time.monotonic() - self._began
            passed = (self.skipped + read, self.skipped + expanded, self.skipped + embedded)
            total = self._source.total()
            self._job.on_progress(Progress(*passed, self.ledger.answered, self.skipped, total, seconds))

    def count_read(self, n_items: int) -> None:
        """Adds the items of a lot that was read to its end."""
        self.ledger.read += n_items

    def count_answered_as_read(self) -> None:
        """Forgets the items without an end of a lot that failed: they are read again."""
        self.ledger.read = self.ledger.answered

    def save(self) -> None:
        """Saves a checkpoint if the source can be resumed.

        Raises:
            IngestError: the disk refuses it; the checkpoint before it is intact.
        """
        if self._resumable:
            booked = msgspec.structs.replace(self.ledger, read=self.ledger.answered)
            self._checkpoint = msgspec.structs.replace(
                self._checkpoint, ledger=booked, dead_letters_bytes=self._letters.size, mark=self.mark
            )
            save(self._folder / CHECKPOINT, self._checkpoint)
        self._saved_at = time.monotonic()

    def complete(self) -> None:
        """Ends the run, unless it was stopped.

        Raises:
            LedgerUnbalanced: items are unaccounted for; the checkpoint stays.
            IngestError: the disk refuses the watermark; the checkpoint stays.
        """
        if not self._job.stopped.is_set():
            self.ledger.check()
            if self._resumable and self.mark is not None:
                belongs_to = self._source.identity, self._index_identity, self._recipe
                save(self._watermark, Watermark(*belongs_to, self.mark, self.ledger))
            remove(self._folder / CHECKPOINT)

    def report(self) -> Report:
        """How the run ended."""
        profile = self._job.profile
        return Report(
            index=self._job.index,
            source=self._source.identity,
            ledger=self.ledger,
            complete=not self._job.stopped.is_set(),
            seconds=time.monotonic() - self._began,
            skipped=self.skipped,
            without_text=self.without_text,
            duplicates=self.duplicates,
            sent_again=self.sent_again,
            removed=self.removed,
            watermark=self.mark,
            dead_letters=str(self.dead_letters) if self.ledger.dead_lettered else None,
            models=[
                model.identity
                for model in (profile.generator, profile.encoder, profile.image and profile.image.encoder)
                if model
            ],
        )

    def _begin(self) -> Checkpoint:
        found = None if self._from_start else load(self._folder / CHECKPOINT)
        if found is not None:
            if not self._resumable:
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
            mark=self._mark_of_the_last_run(),
        )

    def _mark_of_the_last_run(self) -> str | None:
        """None also if another index has this name now, or everything is to be enriched anew."""
        if self._from_start or not self._resumable:
            return None
        last = load_state(self._watermark, Watermark)
        here = self._source.identity, self._index_identity, self._recipe
        return last.mark if last and (last.source, last.index, last.recipe) == here else None

    def _refuse_uniform_failure(self, outcomes: Sequence[Outcome]) -> None:
        dead = [outcome.failure for outcome in outcomes if outcome.failure and outcome.kind == "dead_lettered"]
        # Only the cluster's own refusals have a status.
        refused = [failure for failure in dead if failure.status is not None]
        accepted = self.ledger.written + self.ledger.unchanged
        accepted += sum(outcome.kind in ("written", "unchanged") for outcome in outcomes)
        if accepted or len(refused) < _UNIFORM_FAILURE or len({failure.kind for failure in refused}) > 1:
            return
        # The reason may quote a value of the document after "Preview".
        reason = refused[0].reason.split(". Preview")[0]
        raise IngestError(
            f"all {len(refused)} documents of a batch were refused for one reason ({refused[0].kind}: {reason}), and "
            f"none was written before: correct the mapping or the source; these documents are neither written nor "
            f"dead letters"
        )

    def _check_dead_letters(self) -> None:
        dead = self.ledger.dead_lettered
        if dead and self._job.strict:
            self._job.stopped.set()
        elif dead > self._job.settings.max_errors:
            raise IngestError(
                f"{dead:,} dead letters, ingest.max_errors allows {self._job.settings.max_errors:,}: see "
                f"{self.dead_letters} for the reasons, then run it again"
            )
