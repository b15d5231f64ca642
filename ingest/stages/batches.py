"""Batches of a source on their way through the stages, with what has ended before it could be written."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Generic, TypeVar

from bridge.errors import ModelError
from bridge.records import Document, ExpandedDocument
from ingest.books.ledger import Failure, Outcome
from ingest.sources.source import SourceItem, Unreadable

A = TypeVar("A", bound=Document | ExpandedDocument)
B = TypeVar("B")
T = TypeVar("T")

Identity = tuple[str, str | None]
"""A document's id and routing: what tells it from others in an index."""

_REPEATED = Failure("repeated_id", "the same id comes again later in the source")

_DUPLICATE = Failure("duplicate_id", "the same id came earlier in the source, and ingest.on_duplicate is error")


@dataclass(frozen=True, slots=True)
class Batch(Generic[T]):
    """Consecutive items of a source: `documents` go on, `ended` are answered for already."""

    documents: Sequence[T]
    ended: Sequence[tuple[SourceItem, Outcome]]

    @property
    def n_items(self) -> int:
        """Items of the source that the batch stands for."""
        return len(self.documents) + len(self.ended)


class BatchReader:
    """Groups a source's items and ends those that need no work."""

    def __init__(
        self,
        changed: Callable[[Sequence[Document]], list[Document]] | None,
        *,
        max_items: int,
        max_texts: int,
        last_wins: bool = True,
    ) -> None:
        """`changed` tells which documents the index does not hold just so; None where it is empty. A batch
        holds at most `max_items` items, and `max_texts` documents that models have to read. Of documents with
        one id and routing the last one wins, or else the first one, and the others are dead letters. One id
        under two routings is two documents where these lead to different shards: both go on, one batch after
        the other."""
        self._changed = changed
        self._max_items = max_items
        self._max_texts = max_texts
        self._last_wins = last_wins
        self._seen: set[int] = set()
        self.duplicates = 0
        self.read = 0

    def batches(self, items: Iterable[SourceItem]) -> Iterator[Batch[Document]]:
        """The items in batches, in their order: so that how many have ended says which."""
        remaining = iter(items)
        while group := list(islice(remaining, self._max_items)):
            self.read += len(group)
            yield from self._split(group, self._ended(group))

    def _split(self, group: Sequence[SourceItem], ended: Mapping[int, Outcome]) -> Iterator[Batch[Document]]:
        documents: list[Document] = []
        over: list[tuple[SourceItem, Outcome]] = []
        ids: set[str] = set()
        n_texts = 0
        for position, item in enumerate(group):
            if isinstance(item, Document) and position not in ended:
                if item.doc_id in ids:
                    yield Batch(documents, over)
                    documents, over, ids, n_texts = [], [], set(), 0
                documents.append(item)
                ids.add(item.doc_id)
                n_texts += any(text.strip() for text in item.texts.values())
            else:
                over.append((item, ended[position]))
            if n_texts == self._max_texts:
                yield Batch(documents, over)
                documents, over, ids, n_texts = [], [], set(), 0
        if documents or over:
            yield Batch(documents, over)

    def _ended(self, group: Sequence[SourceItem]) -> dict[int, Outcome]:
        """By position in the group: the items that need no work."""
        ended: dict[int, Outcome] = {}
        last: dict[Identity, tuple[int, Document]] = {}
        repeated: set[Identity] = set()
        for position, item in enumerate(group):
            if isinstance(item, Unreadable):
                ended[position] = Outcome("dead_lettered", Failure(item.kind, item.reason))
                continue
            identity = _identity(item)
            if hash(identity) in self._seen:
                self.duplicates += 1
                if not self._last_wins:
                    ended[position] = Outcome("dead_lettered", _DUPLICATE)
                    continue
                repeated.add(identity)
            if (earlier := last.get(identity)) is not None:
                # Inside one bulk request, an item that is sent again could overtake the later one.
                ended[earlier[0]] = Outcome("superseded", _REPEATED)
            self._seen.add(hash(identity))
            last[identity] = (position, item)
        if self._changed is not None:
            # What the index holds of a document that came before is this run's own doing, not yet finished.
            compared = {identity: found for identity, found in last.items() if identity not in repeated}
            stale = set(map(_identity, self._changed([document for _, document in compared.values()])))
            ended.update((at, Outcome("unchanged")) for identity, (at, _) in compared.items() if identity not in stale)
        return ended


def _identity(document: Document) -> Identity:
    return document.doc_id, document.routing


class Stage(Generic[A, B]):
    """A step that takes batches, and counts the items that passed."""

    def __init__(self, step: Callable[[Sequence[A]], list[B]]) -> None:
        """`step` takes documents and gives as many back, in their order, or raises `ModelError`."""
        self._step = step
        self.items = 0

    def __call__(self, batch: Batch[A]) -> Batch[B]:
        """Takes a batch one step on. Where the model fails, documents go alone, so that only those end
        here that it cannot read."""
        try:
            done = Batch(self._step(batch.documents) if batch.documents else [], batch.ended)
        except ModelError:
            done = self._one_by_one(batch)
        self.items += batch.n_items
        return done

    def _one_by_one(self, batch: Batch[A]) -> Batch[B]:
        done: list[B] = []
        ended = list(batch.ended)
        for document in batch.documents:
            try:
                done += self._step([document])
            except ModelError as error:
                failure = Failure("model_error", str(error))
                ended.append((_original(document), Outcome("dead_lettered", failure)))
        return Batch(done, ended)


def _original(document: Document | ExpandedDocument) -> Document:
    return document.document if isinstance(document, ExpandedDocument) else document
