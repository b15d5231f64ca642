"""What a run says while it works and when it has ended."""

from typing import Any

import msgspec

from bridge.errors import EXIT_DEAD_LETTERS
from ingest.books.ledger import Ledger

SCHEMA_VERSION = 1
"""Of `Report.to_json`; rises when a field changes its meaning or goes."""


class Progress(msgspec.Struct, frozen=True):
    """How far a run is. `read`, `expanded` and `embedded` count items that passed that stage, `answered`
    those whose end is known; `total` where the source knows it. `seconds` since this run began, and
    `skipped` items that an earlier run had answered for."""

    read: int
    expanded: int
    embedded: int
    answered: int
    skipped: int
    total: int | None
    seconds: float

    @property
    def rate(self) -> float:
        """Items answered for per second of this run."""
        return (self.answered - self.skipped) / self.seconds if self.seconds > 0 else 0.0


class Report(msgspec.Struct, frozen=True):
    """How a run ended. `ledger` also counts what earlier runs of the same checkpoint did.

    `complete`: every item of the source has ended. `without_text`: documents written without vectors,
    since there was nothing to embed. `duplicates`: ids that came more than once, of which the last won.
    `sent_again`: actions that the cluster did not take at once.
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
    dead_letters: str | None = None
    models: list[str] = []

    @property
    def exit_code(self) -> int:
        """0 where every document is in the index, 3 where some are not."""
        return EXIT_DEAD_LETTERS if self.ledger.dead_lettered or self.ledger.dropped_by_pipeline else 0

    @property
    def documents_per_s(self) -> float:
        """Items that this run answered for, per second."""
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
        if self.dead_letters:
            lines.append(f"  why documents are dead letters: {self.dead_letters}")
        if self.complete and not ledger.written and not ledger.dead_lettered:
            lines.append("  nothing to do")
        return "\n".join(lines)
