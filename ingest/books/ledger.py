"""How the items of a run ended, its progress and its report.

What went in equals what came out: every item of a source ends in exactly one of five ways, and the sums must balance
before a run may call itself complete.
"""

from typing import Any, Literal

import msgspec

from bridge.errors import EXIT_DEAD_LETTERS, LedgerUnbalanced

SCHEMA_VERSION = 1
"""Of `Report.to_json`; rises when a field is removed or changes its meaning."""

OutcomeKind = Literal["written", "unchanged", "superseded", "dropped_by_pipeline", "dead_lettered"]
"""written: the cluster stored it. unchanged: the index already had it. superseded: the index has something newer, or
the document was deleted meanwhile. dropped_by_pipeline: an ingest pipeline of the cluster dropped it. dead_lettered: it
can never be written as it is, and is in the file of dead letters."""


class Failure(msgspec.Struct, frozen=True):
    """Why an item was not written: the cluster's or our name for it, the reason, and the cluster's HTTP status."""

    kind: str
    reason: str
    status: int | None = None


class Outcome(msgspec.Struct, frozen=True):
    """How one item ended; `failure` says why it was not written."""

    kind: OutcomeKind
    failure: Failure | None = None


class Ledger(msgspec.Struct):
    """Items read, and how they ended."""

    read: int = 0
    written: int = 0
    unchanged: int = 0
    superseded: int = 0
    dropped_by_pipeline: int = 0
    dead_lettered: int = 0

    def add(self, kind: OutcomeKind, items: int = 1) -> None:
        """Counts items that ended in this way."""
        setattr(self, kind, getattr(self, kind) + items)

    @property
    def answered(self) -> int:
        """Items with an end."""
        return self.written + self.unchanged + self.superseded + self.dropped_by_pipeline + self.dead_lettered

    def check(self) -> None:
        """Checks that every item that was read has one end.

        Raises:
            LedgerUnbalanced: some have none, or several.
        """
        if self.answered != self.read:
            raise LedgerUnbalanced(
                f"{self.read:,} items were read, {self.answered:,} accounted for "
                f"({self.read - self.answered:+,}): {self}; run it again, documents that are written are not "
                f"written twice"
            )

    def __str__(self) -> str:
        return ", ".join(f"{name} {getattr(self, name):,}" for name in self.__struct_fields__)


class Progress(msgspec.Struct, frozen=True):
    """How far a run is. `read`, `expanded` and `embedded` count items that passed that stage, `answered` those with an
    end, also the `skipped` ones of an earlier run; `total` is None if the source does not know it."""

    read: int
    expanded: int
    embedded: int
    answered: int
    skipped: int
    total: int | None
    seconds: float

    @property
    def rate(self) -> float:
        """Items of this run with an end, per second."""
        return (self.answered - self.skipped) / self.seconds if self.seconds > 0 else 0.0


class Report(msgspec.Struct, frozen=True):
    """How a run ended. `ledger` also counts the `skipped` items of earlier runs with the same checkpoint.

    `complete`: every item of the source has ended. `without_text`: documents written without vectors, since they have
    no text. `duplicates`: ids that came more than once, of which the last won. `sent_again`: actions that the cluster
    did not take at once. `removed`: documents whose rows are gone. `watermark`: where the next run begins, if the
    source has one. `dead_letters`: their file, if there are any.
    """

    index: str
    source: str
    ledger: Ledger
    complete: bool
    seconds: float
    skipped: int = 0
    without_text: int = 0
    duplicates: int = 0
    sent_again: int = 0
    removed: int = 0
    watermark: str | None = None
    dead_letters: str | None = None
    models: list[str] = []

    @property
    def exit_code(self) -> int:
        """0 if every document is in the index, 3 if some are not."""
        return EXIT_DEAD_LETTERS if self.ledger.dead_lettered or self.ledger.dropped_by_pipeline else 0

    @property
    def documents_per_s(self) -> float:
        """Items of this run with an end, per second."""
        return (self.ledger.answered - self.skipped) / self.seconds if self.seconds > 0 else 0.0

    def to_json(self) -> dict[str, Any]:
        """One JSON object for `--json`."""
        built: dict[str, Any] = msgspec.to_builtins(self)
        return {"schema_version": SCHEMA_VERSION, **built, "documents_per_s": round(self.documents_per_s, 1)}

    def __str__(self) -> str:
        ledger = self.ledger
        lines = [
            f"{self.index}: {ledger.answered:,} documents in {self.seconds:.1f} s ({self.documents_per_s:.1f}/s)",
            f"  written {ledger.written:,}, unchanged {ledger.unchanged:,}, superseded {ledger.superseded:,}, "
            f"dropped by a pipeline {ledger.dropped_by_pipeline:,}, dead letters {ledger.dead_lettered:,}",
        ]
        if self.without_text:
            lines.append(f"  {self.without_text:,} have no text, and so no vector")
        if self.duplicates:
            lines.append(f"  {self.duplicates:,} ids came more than once: the last one won")
        if self.removed:
            lines.append(f"  removed {self.removed:,}, since their rows are gone")
        if self.dead_letters:
            lines.append(f"  why documents are dead letters: {self.dead_letters}")
        if self.complete and not ledger.written and not ledger.dead_lettered and not self.removed:
            lines.append("  nothing to do")
        return "\n".join(lines)
