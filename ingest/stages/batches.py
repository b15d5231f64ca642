"""Batches on their way through the stages, each of which works a little ahead of the next.

A batch carries, beside its documents, the items that ended before they could be written, so that every item of a source
is answered for.
"""

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from queue import Empty, Full, Queue
from typing import Generic, Self, TypeVar

from bridge.errors import ModelError, PictureRefused
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

_POLL_S = 0.1
"""How soon a thread notices that it is to end."""

_JOIN_S = 30.0
"""How long a thread may finish its item; a read of stdin may never end."""


@dataclass(frozen=True, slots=True)
class Batch(Generic[T]):
    """Consecutive items of a source: `documents` go on, `ended` are answered for already."""

    documents: Sequence[T]
    ended: Sequence[tuple[SourceItem, Outcome]]

    @property
    def n_items(self) -> int:
        """Items of the source in the batch."""
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
        """`changed` returns the documents that differ from the index; None means that the index is empty. A batch
        holds at most `max_items` items, and `max_texts` documents that models have to read.

        Of documents with one id and routing the last one wins, or else the first one, and the others are dead letters.
        One id under two routings is two documents if these lead to different shards: both go on, one batch after the
        other.
        """
        self._changed = changed
        self._max_items = max_items
        self._max_texts = max_texts
        self._last_wins = last_wins
        self._seen: set[int] = set()
        self.duplicates = 0
        self.read = 0

    def batches(self, items: Iterable[SourceItem]) -> Iterator[Batch[Document]]:
        """The items in batches, in their order: the number of items that ended says which ones."""
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
                n_texts += bool(item.image) or any(text.strip() for text in item.texts.values())
            else:
                over.append((item, ended[position]))
            if n_texts == self._max_texts:
                yield Batch(documents, over)
                documents, over, ids, n_texts = [], [], set(), 0
        if documents or over:
            yield Batch(documents, over)

    def _ended(self, group: Sequence[SourceItem]) -> dict[int, Outcome]:
        """The items that need no work, by position in the group."""
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
            # If a document came before, the index holds what this run wrote of it, or is about to.
            compared = {identity: entry for identity, entry in last.items() if identity not in repeated}
            stale = set(map(_identity, self._changed([document for _, document in compared.values()])))
            ended.update((at, Outcome("unchanged")) for identity, (at, _) in compared.items() if identity not in stale)
        return ended


def _identity(document: Document) -> Identity:
    return document.doc_id, document.routing


class Stage(Generic[A, B]):
    """A step that takes batches, and counts the items that passed."""

    def __init__(self, step: Callable[[Sequence[A]], list[B]]) -> None:
        """`step` gives as many documents as it takes, in their order, or raises `ModelError`."""
        self._step = step
        self.items = 0

    def __call__(self, batch: Batch[A]) -> Batch[B]:
        """Takes a batch one step on. If the model fails, documents go alone, so that only those that it cannot read
        end here."""
        try:
            done = Batch(self._step(batch.documents) if batch.documents else [], batch.ended)
        except ModelError:
            done = self._one_by_one(batch)
        self.items += batch.n_items
        return done

    def _one_by_one(self, batch: Batch[A]) -> Batch[B]:
        done: list[B] = []
        ended = list(batch.ended)
        for each in batch.documents:
            try:
                done += self._step([each])
            except ModelError as error:
                document = each.document if isinstance(each, ExpandedDocument) else each
                kind = "picture_refused" if isinstance(error, PictureRefused) else "model_error"
                ended.append((document, Outcome("dead_lettered", Failure(kind, str(error)))))
        return Batch(done, ended)


@dataclass(frozen=True, slots=True)
class _End:
    """The last thing in a queue: the iterable ended, by itself or by an error."""

    error: BaseException | None = None


class WorkAhead:
    """Threads that each work a few items ahead of whoever takes these. Leaving the context ends the threads."""

    def __init__(self, stopped: threading.Event) -> None:
        """`stopped`, once set, ends every iteration early, as if its items were over: whoever sets it knows
        that end from the real one."""
        self._stopped = stopped
        self._left = threading.Event()
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._left.set()
        for thread in self._threads:
            thread.join(_JOIN_S)

    def ahead(self, items: Iterable[T], *, n_items: int, name: str) -> Iterator[T]:
        """Iterates over `items` on a thread of its own, at most `n_items` ahead of whoever takes them.

        An error of the iterable is raised where its items are taken.
        """
        queue: Queue[T | _End] = Queue(n_items)
        thread = threading.Thread(target=self._work, args=(items, queue), name=name, daemon=True)
        self._threads.append(thread)
        thread.start()
        return self._taken(queue)

    def _work(self, items: Iterable[T], queue: Queue[T | _End]) -> None:
        try:
            for item in items:
                if not self._put(queue, item):
                    return
        except BaseException as error:  # noqa: BLE001 (raised again on the other side)
            self._put(queue, _End(error))
        else:
            self._put(queue, _End())

    def _put(self, queue: Queue[T | _End], item: T | _End) -> bool:
        while not self._over():
            try:
                queue.put(item, timeout=_POLL_S)
            except Full:
                continue
            return True
        return False

    def _taken(self, queue: Queue[T | _End]) -> Iterator[T]:
        while not self._over():
            try:
                item = queue.get(timeout=_POLL_S)
            except Empty:
                continue
            if not isinstance(item, _End):
                yield item
            elif item.error is not None:
                raise item.error
            else:
                return

    def _over(self) -> bool:
        return self._stopped.is_set() or self._left.is_set()
