"""One run: source → expansion → embedding → writer → ledger, each stage ahead of the next."""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress

from bridge.errors import IngestError
from bridge.profile import IndexProfile
from bridge.records import Document, EnrichedDocument
from bridge.settings import IngestSettings
from ingest.books.accounts import Accounts
from ingest.books.ledger import Outcome
from ingest.books.report import Progress, Report
from ingest.sources.source import SourceItem
from ingest.stages.batches import Batch, BatchReader, Stage, WorkAhead
from ingest.stages.embedding import Embedding
from ingest.stages.expansion import Expansion
from ingest.stages.models import Models
from ingest.writing.actions import BulkAction
from ingest.writing.rate_limit import Pace
from ingest.writing.retry import RunStopped
from ingest.writing.writer import BulkWriter

BATCH_DOCUMENTS = 64
"""Enough for the models to sort by length, few enough that the stages start early and stop soon."""

_AHEAD = 2
VERSION_CONFLICT = "version_conflict_engine_exception"
"""How a cluster names a write that does not hold for the version that is there now."""

Changed = Callable[[Sequence[Document]], list[Document]]
"""Documents → those that have to be made, in their order."""


class Run:
    """The stages of one run, and what they count. It may be sent several lots of items, one after another."""

    def __init__(
        self,
        accounts: Accounts,
        profile: IndexProfile,
        models: Models,
        settings: IngestSettings,
        writer: BulkWriter,
        *,
        stamp: Callable[[Document], str],
        action: Callable[[EnrichedDocument, IndexProfile], BulkAction],
        stopped: threading.Event,
        strict: bool = False,
        pace: Pace | None = None,
    ) -> None:
        """`stamp` and `action` say what is written of a document, and how. `stopped`, once set, ends the run
        at the next opportunity; the run itself sets it where it ends early. `strict` ends it at the first
        dead letter. `pace` None is as fast as it goes."""
        self._accounts = accounts
        self._profile = profile
        self._writer = writer
        self._action = action
        self._stopped = stopped
        self._strict = strict
        self._pace = pace
        self._last_wins = settings.on_duplicate == "last"
        self._max_dead_letters = settings.max_errors
        self._max_items = settings.bulk_documents
        self._expansion = Stage(Expansion.of(profile, models, settings))
        self._embedding = Stage(Embedding.of(profile, models, stamp))
        self._began = time.monotonic()
        self._without_text = 0
        self._duplicates = 0
        self.read = 0
        self.conflicts: list[Document] = []
        """Documents that somebody else changed between reading and writing."""

    def send(
        self,
        items: Iterable[SourceItem],
        *,
        changed: Changed | None,
        on_progress: Callable[[Progress], None],
        total: int | None,
    ) -> None:
        """Takes items from their reading to their end. `changed` tells which of them need work, None all;
        `total` is for the progress.

        Raises:
            IngestError: too many dead letters, or the disk refuses the books.
            BridgeError: what `BulkWriter.write` and the source say.
        """
        reader = BatchReader(changed, max_items=self._max_items, max_texts=BATCH_DOCUMENTS, last_wins=self._last_wins)
        batches = reader.batches(items)
        read_before = self.read
        try:
            with WorkAhead(self._stopped) as stages:
                read = stages.ahead(self._pace.held(batches) if self._pace else batches, n_items=_AHEAD, name="read")
                expanded = stages.ahead(map(self._expansion, read), n_items=_AHEAD, name="expand")
                embedded = stages.ahead(map(self._embedding, expanded), n_items=_AHEAD, name="embed")
                for batch, outcomes in self._written(embedded):
                    self._book(batch, outcomes)
                    self.read = read_before + reader.read
                    on_progress(self._progress(total))
                    self._check_dead_letters()
        finally:
            self.read = read_before + reader.read
            self._duplicates += reader.duplicates
            # An error on its way out matters more than one of saving how far the run got.
            with suppress(IngestError):
                self._accounts.save()

    @property
    def skipped(self) -> int:
        """Items that an earlier run had answered for."""
        return self._accounts.skipped

    def finish(self) -> None:
        """Ends a run that was sent everything, unless it was stopped.

        Raises:
            LedgerUnbalanced: items are unaccounted for.
        """
        if not self._stopped.is_set():
            self._accounts.complete(read=self.read)

    def report(self, index: str, source: str) -> Report:
        """How the run ended."""
        accounts = self._accounts
        models = (self._profile.generator, self._profile.encoder)
        return Report(
            index=index,
            source=source,
            ledger=accounts.ledger,
            complete=not self._stopped.is_set(),
            seconds=time.monotonic() - self._began,
            skipped=accounts.skipped,
            without_text=self._without_text,
            duplicates=self._duplicates,
            sent_again=self._writer.sent_again,
            dead_letters=str(accounts.dead_letters) if accounts.ledger.dead_lettered else None,
            models=[model.identity for model in models if model],
        )

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
                self._stopped.set()  # Other requests in flight need not be patient any more.
                raise

    def _write(self, batch: Batch[EnrichedDocument]) -> list[Outcome]:
        return self._writer.write([self._action(document, self._profile) for document in batch.documents])

    def _book(self, batch: Batch[EnrichedDocument], outcomes: Sequence[Outcome]) -> None:
        written: list[tuple[SourceItem, Outcome]] = []
        for enriched, outcome in zip(batch.documents, outcomes, strict=True):
            written.append((enriched.document, outcome))
            if outcome.failure is not None and outcome.failure.kind == VERSION_CONFLICT:
                self.conflicts.append(enriched.document)
            self._without_text += not enriched.passages
        self._accounts.book([*batch.ended, *written])

    def _check_dead_letters(self) -> None:
        dead = self._accounts.ledger.dead_lettered
        if dead and self._strict:
            self._stopped.set()
        elif dead > self._max_dead_letters:
            raise IngestError(
                f"{dead:,} dead letters, ingest.max_errors allows {self._max_dead_letters:,}: see "
                f"{self._accounts.dead_letters} for the reasons, then run it again"
            )

    def _progress(self, total: int | None) -> Progress:
        skipped = self._accounts.skipped
        return Progress(
            read=skipped + self.read,
            expanded=skipped + self._expansion.items,
            embedded=skipped + self._embedding.items,
            answered=self._accounts.ledger.answered,
            skipped=skipped,
            total=total,
            seconds=time.monotonic() - self._began,
        )


def _share_ids(batch: Batch[EnrichedDocument], in_flight: Iterable[tuple[Batch[EnrichedDocument], object]]) -> bool:
    """Whether a document comes again while its earlier version may still be sent again."""
    ids = {enriched.document.doc_id for enriched in batch.documents}
    return any(enriched.document.doc_id in ids for earlier, _ in in_flight for enriched in earlier.documents)
