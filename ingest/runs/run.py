"""A run in this process: source → expansion → embedding → writer → books, each stage ahead of the next."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from threading import Event
from typing import Any, Protocol

from opensearchpy import OpenSearch

from bridge.errors import IngestError
from bridge.profile import IndexProfile
from bridge.records import Document, EnrichedDocument
from bridge.settings import IngestSettings
from ingest.books.books import Books
from ingest.books.ledger import Outcome
from ingest.job import Job
from ingest.sources.index import IndexDocuments
from ingest.sources.source import Source, SourceItem
from ingest.stages.batches import Batch, BatchReader, Stage, WorkAhead
from ingest.stages.embedding import Embedding
from ingest.stages.expansion import Expansion
from ingest.stages.stamps import ChangeFilter, recipe, stale, stamp, text_stamp
from ingest.writing.bulk import BulkAction, companion_action, index_action, update_action
from ingest.writing.pace import RateLimit, RunStopped, retrying
from ingest.writing.writer import BulkLimits, BulkWriter

BATCH_DOCUMENTS = 64
"""Enough for the models to sort by length, few enough that the stages start early and stop soon."""

_AHEAD = 2

Changed = Callable[[Sequence[Document]], list[Document]]
"""Documents → those that have to be enriched, in their order."""


class StartedRun(Protocol):
    """A run whose books are open."""

    def send(self, source: Source[Any], *, is_empty: bool = False) -> None:
        """Takes the items of a source, except those that an earlier run has answered for, to their end. `is_empty`: the
        index holds no document that one could be compared with.

        Raises:
            IngestError: too many dead letters, or the disk refuses the books.
            BridgeError: what `BulkWriter.write` and the source say.
        """

    def send_again(self, source: IndexDocuments, documents: Sequence[Document]) -> None:
        """Takes these documents of an index, read anew, to their end; raises as `send` does."""


class Executor(Protocol):
    """Where the stages of a run work."""

    @property
    def in_order(self) -> bool:
        """Whether items end in the order of the source, so that a checkpoint can say how far a run got."""

    def start(self, job: Job, books: Books, *, in_place: bool) -> AbstractContextManager[StartedRun]:
        """A run into the index of `job`. `in_place`: the source is the index itself, in whose documents only our
        object is set; else whole documents are written, those of a companion if `profile.beside` says so."""


class LocalExecutor:
    """The stages work in threads of this process."""

    in_order = True

    @contextmanager
    def start(self, job: Job, books: Books, *, in_place: bool) -> "Iterator[Run]":
        """See `Executor`."""
        yield Run(job, books, in_place=in_place)


LOCAL = LocalExecutor()


class Run:
    """The stages of one run in this process. It may be sent several lots of items, one after another."""

    def __init__(self, job: Job, books: Books, *, in_place: bool, made_by: str | None = None) -> None:
        """`in_place` as for `Executor.start`; `made_by` is the recipe that stamps name, if it is not that of the job's
        profile and settings."""
        profile, settings = job.profile, job.settings
        made_by = made_by or recipe(profile, settings)
        self._job = job
        self._books = books
        self._writer = BulkWriter(job.client, job.index, BulkLimits.of(settings), stopped=job.stopped)
        self._action = action_of(profile, in_place=in_place)
        self._changed = change_filter(job.client, job.index, profile, settings, job.stopped, in_place=in_place)
        self._rate_limit = RateLimit.of(settings, job.client, job.index, stopped=job.stopped)
        self._expansion = Stage(Expansion.of(profile, job.models, settings))
        self._embedding = Stage(Embedding.of(profile, job.models, stamp_of(profile, made_by, in_place=in_place)))
        self._read = 0

    def send(self, source: Source[Any], *, is_empty: bool = False) -> None:
        """See `StartedRun`."""
        self.send_items(
            source.items(self._books.skipped, self._books.mark), changed=None if is_empty else self._changed
        )

    def send_again(self, source: IndexDocuments, documents: Sequence[Document]) -> None:
        """See `StartedRun`."""
        self.send_items(source.read_again(documents), changed=self._changed)

    def send_items(self, items: Iterable[SourceItem], *, changed: Changed | None) -> None:
        """Takes items to their end, as `send` does; `changed` None enriches all of them."""
        settings, stopped = self._job.settings, self._job.stopped
        reader = BatchReader(
            changed,
            max_items=settings.bulk_documents,
            max_texts=BATCH_DOCUMENTS,
            last_wins=settings.on_duplicate == "last",
        )
        read_before = self._read
        try:
            with WorkAhead(stopped) as stages:
                batches = self._rate_limit.limited(reader.batches(items))
                read = stages.ahead(batches, n_items=_AHEAD, name="read")
                expanded = stages.ahead(map(self._expansion, read), n_items=_AHEAD, name="expand")
                embedded = stages.ahead(map(self._embedding, expanded), n_items=_AHEAD, name="embed")
                for batch, outcomes in self._written(embedded):
                    self._book(batch, outcomes)
                    self._read = read_before + reader.read
                    expanded_items, embedded_items = self._expansion.items, self._embedding.items
                    self._books.show(read=self._read, expanded=expanded_items, embedded=embedded_items)
        except BaseException:
            self._books.count_answered_as_read()
            raise
        else:
            if not stopped.is_set():
                self._books.count_read(reader.read)
        finally:
            self._read = read_before + reader.read
            self._books.duplicates += reader.duplicates
            self._books.sent_again = self._writer.sent_again
            # An error on its way out matters more than one of saving how far the run got.
            with suppress(IngestError):
                self._books.save()

    def _written(
        self, batches: Iterable[Batch[EnrichedDocument]]
    ) -> Iterator[tuple[Batch[EnrichedDocument], list[Outcome]]]:
        """Writes several batches at once and gives them back in their order, with how each document ended."""
        in_flight: deque[tuple[Batch[EnrichedDocument], Future[list[Outcome]]]] = deque()
        most = self._writer.concurrency
        with ThreadPoolExecutor(most, thread_name_prefix="write") as pool:
            try:
                for batch in batches:
                    while in_flight and (len(in_flight) == most or _share_ids(batch, in_flight)):
                        written, future = in_flight.popleft()
                        yield written, future.result()
                    in_flight.append((batch, pool.submit(self._write, batch)))
                while in_flight:
                    written, future = in_flight.popleft()
                    yield written, future.result()
            except RunStopped:
                return  # What is not answered for is done by the next run.
            except BaseException:
                self._job.stopped.set()  # Other requests in flight need not be tried again.
                raise

    def _write(self, batch: Batch[EnrichedDocument]) -> list[Outcome]:
        return self._writer.write([self._action(document) for document in batch.documents])

    def _book(self, batch: Batch[EnrichedDocument], outcomes: Sequence[Outcome]) -> None:
        documents = [enriched.document for enriched in batch.documents]
        self._books.without_text += sum(not enriched.passages for enriched in batch.documents)
        self._books.book([*batch.ended, *zip(documents, outcomes, strict=True)])


def action_of(profile: IndexProfile, *, in_place: bool) -> Callable[[EnrichedDocument], BulkAction]:
    """How an enriched document is written: our object alone, the whole document, or its companion."""
    whole = companion_action if profile.beside else index_action
    return partial(update_action if in_place else whole, profile=profile)


def stamp_of(profile: IndexProfile, made_by: str, *, in_place: bool) -> Callable[[Document], str]:
    """The stamps of documents that the recipe `made_by` enriches."""
    return partial(text_stamp if in_place or profile.beside else stamp, made_by)


def change_filter(
    client: OpenSearch,
    index: str,
    profile: IndexProfile,
    settings: IngestSettings,
    stopped: Event,
    *,
    in_place: bool,
) -> Changed:
    """Tells which documents have to be enriched: by the stamps that were read with them, or by those in the index."""
    made_by = recipe(profile, settings)
    if in_place:
        return partial(stale, profile=profile, recipe=made_by)
    compare = ChangeFilter(client, index, profile, made_by).changed
    return retrying(compare, BulkLimits.of(settings).retry, stopped)


def _share_ids(batch: Batch[EnrichedDocument], in_flight: Iterable[tuple[Batch[EnrichedDocument], object]]) -> bool:
    """Whether a document comes again while its earlier version may still be sent again."""
    ids = {enriched.document.doc_id for enriched in batch.documents}
    return any(enriched.document.doc_id in ids for earlier, _ in in_flight for enriched in earlier.documents)
