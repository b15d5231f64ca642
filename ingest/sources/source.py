"""What a source of documents is: parts, each with items in a fixed order, each a document or a named problem.

Nothing is skipped silently, so items can be counted, and a run that was stopped goes on after the items that it
answered for. One process reads part after part, Ray's machines read parts side by side.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Generic, TypeVar

from bridge.records import Document, SourcePosition

SAMPLE_BYTES = 2_000
"""How much is kept of something that is too long to keep."""

P = TypeVar("P")


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Something in the source that is no document: it becomes a dead letter.

    `raw` is what the source holds, or its beginning if it is too long; `doc_id` is set if an id could be read.
    """

    position: SourcePosition
    kind: str
    reason: str
    raw: bytes
    doc_id: str | None = None


SourceItem = Document | Unreadable


class Source(ABC, Generic[P]):
    """What a run reads: files, an index, dead letters. Its parts can be pickled."""

    identity: str
    """Changes whenever the items or their order may have changed: a checkpoint is bound to it."""

    resumable: bool = False
    """Whether reading it again gives the same items in the same order."""

    @abstractmethod
    def parts(self) -> Sequence[P]:
        """The parts of the source, in order: every item is in exactly one of them."""

    @abstractmethod
    def read(self, part: P) -> Iterator[SourceItem]:
        """The items of one part, in a fixed order.

        Raises:
            UsageError: the source cannot be read.
        """

    def items(self, skip: int = 0, mark: str | None = None) -> Iterator[SourceItem]:
        """The items of all parts but the first `skip`; or those from `mark` on, if positions have marks.

        Raises:
            UsageError: the source cannot be read.
        """
        return islice(chain.from_iterable(map(self.read, self.parts())), skip, None)

    @abstractmethod
    def total(self) -> int | None:
        """The number of items; None if only reading them all would tell."""


class DocumentsInMemory(Source[Sequence[Document]]):
    """Documents that Python already holds."""

    def __init__(self, documents: Sequence[Document], *, identity: str = "memory") -> None:
        """`identity` names the documents in messages."""
        self._documents = documents
        self.identity = identity

    def parts(self) -> Sequence[Sequence[Document]]:
        """One part: all documents."""
        return [self._documents]

    def read(self, part: Sequence[Document]) -> Iterator[SourceItem]:
        """See `Source`."""
        return iter(part)

    def total(self) -> int:
        """See `Source`."""
        return len(self._documents)
