"""What went in equals what came out.

Every item that a source gave ends in exactly one of five ways; the sums must balance before a run may
call itself complete.
"""

from typing import Literal

import msgspec

from bridge.errors import LedgerUnbalanced

OutcomeKind = Literal["written", "unchanged", "superseded", "dropped_by_pipeline", "dead_lettered"]
"""written: the cluster stored it. unchanged: the index held just this already. superseded: the index holds
something newer, or the document was deleted meanwhile. dropped_by_pipeline: an ingest pipeline of the
cluster dropped it. dead_lettered: it can never be written as it is, and is kept in the dead letters."""


class Failure(msgspec.Struct, frozen=True):
    """Why something was not written: the cluster's (or our) word for it, the reason, the HTTP status."""

    kind: str
    reason: str
    status: int | None = None


class Outcome(msgspec.Struct, frozen=True):
    """How one item ended; `failure` says why where it was not written."""

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
        """Books items that ended in one way."""
        setattr(self, kind, getattr(self, kind) + items)

    @property
    def answered(self) -> int:
        """Items whose end is known."""
        return self.written + self.unchanged + self.superseded + self.dropped_by_pipeline + self.dead_lettered

    def check(self) -> None:
        """Makes sure that nothing is unaccounted for.

        Raises:
            LedgerUnbalanced: items that were read have no end, or more ended than were read.
        """
        if self.answered != self.read:
            raise LedgerUnbalanced(
                f"{self.read:,} items were read, {self.answered:,} accounted for "
                f"({self.read - self.answered:+,}): {self}; run it again, documents that are written are not "
                f"written twice"
            )

    def __str__(self) -> str:
        return ", ".join(f"{name} {getattr(self, name):,}" for name in self.__struct_fields__)
