"""Joins the stages: source → expansion → embedding → writer → ledger, each ahead of the next."""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path

from opensearchpy import OpenSearch

from bridge.cluster import index as indices
from bridge.errors import IngestError
from bridge.passages import split_passages
from bridge.profile import IndexProfile
from bridge.records import Document, EnrichedDocument, ExpandedDocument
from bridge.settings import IngestSettings
from ingest.accounts import Accounts
from ingest.background import Stages
from ingest.batches import Batch, BatchReader, Stage
from ingest.bulk_actions import index_action
from ingest.changes import ChangeFilter
from ingest.embedding import Embedding
from ingest.expansion import Expansion, QueryFilter
from ingest.ledger import Outcome
from ingest.models import Models
from ingest.patience import RunStopped
from ingest.report import Progress, Report
from ingest.sources import Source, SourceItem
from ingest.stamp import recipe, stamp
from ingest.writer import BulkLimits, BulkWriter

BATCH_DOCUMENTS = 64
"""Enough for the models to sort by length, few enough that the stages start early and stop soon."""

_AHEAD = 2


def run_ingest(
    source: Source,
    *,
    index: str,
    profile: IndexProfile,
    models: Models,
    client: OpenSearch,
    settings: IngestSettings,
    state_folder: Path,
    on_progress: Callable[[Progress], None] | None = None,
    stopped: threading.Event | None = None,
    from_start: bool = False,
    strict: bool = False,
) -> Report:
    """Enriches what a source holds and writes it to an index that exists.

    Documents that the index holds just so are left alone. `state_folder` keeps the checkpoint and the dead
    letters; a run that was cut off goes on from there unless `from_start`. Setting `stopped` ends the run
    at the next opportunity, with a checkpoint; the run itself sets it where it ends early. `strict` ends it
    at its first dead letter.

    Raises:
        IndexUnsuitable: the index cannot hold what the profile makes; nothing was written.
        CheckpointUnusable: the state folder is in use, or its checkpoint is damaged or of another run.
        BridgeError: too many dead letters, a disk that refuses the books, or what `BulkWriter.write` and
            the source say; a checkpoint is kept.
    """
    state = indices.check(client, index, profile)
    made_by = recipe(profile, settings)
    index_identity = f"{state.name} ({state.settings.get('uuid')})"
    with Accounts(state_folder, source, index=index_identity, recipe=made_by, from_start=from_start) as accounts:
        is_empty = indices.count(client, state.name) == 0
        changes = ChangeFilter(client, state.name, profile, made_by)
        run = _Run(
            source,
            accounts,
            profile,
            reader=BatchReader(None if is_empty else changes.changed, n_items=BATCH_DOCUMENTS),
            expansion=Stage(expansion(profile, models, settings)),
            embedding=Stage(Embedding(models.encoder, stamp=partial(stamp, made_by))),
            max_dead_letters=settings.max_errors,
            strict=strict,
        )
        stopped = stopped or threading.Event()
        writer = BulkWriter(client, state.name, BulkLimits.of(settings), stopped=stopped)
        run.go(writer, stopped, on_progress or (lambda _: None))
        if run.complete:
            client.indices.refresh(index=state.name)
        return run.report(state.name, sent_again=writer.sent_again)


def expansion(profile: IndexProfile, models: Models, settings: IngestSettings) -> Expansion:
    """The expansion stage that a profile and the settings ask for."""
    return Expansion(
        partial(split_passages, settings=profile.passages, token_spans=models.token_spans),
        models.generator,
        n_queries=settings.queries_per_passage,
        max_query_tokens=settings.max_query_tokens,
        max_bytes=settings.max_expansion_bytes,
        keep=QueryFilter(models.scorer, threshold=settings.filter_threshold) if models.scorer else None,
    )


class _Run:
    """One run from the first item to the last, and what it counts on the way."""

    def __init__(
        self,
        source: Source,
        accounts: Accounts,
        profile: IndexProfile,
        *,
        reader: BatchReader,
        expansion: Stage[Document, ExpandedDocument],
        embedding: Stage[ExpandedDocument, EnrichedDocument],
        max_dead_letters: int,
        strict: bool,
    ) -> None:
        self._source = source
        self._accounts = accounts
        self._profile = profile
        self._reader = reader
        self._expansion = expansion
        self._embedding = embedding
        self._max_dead_letters = max_dead_letters
        self._strict = strict
        self._began = time.monotonic()
        self._without_text = 0
        self.complete = False

    def go(self, writer: BulkWriter, stopped: threading.Event, on_progress: Callable[[Progress], None]) -> None:
        """Runs to the end of the source, or until `stopped`, or to the dead letter that is one too many."""
        try:
            with Stages(stopped) as stages:
                for batch, outcomes in self._written(self._enriched(stages), writer, stopped):
                    self._accounts.book([*batch.ended, *_ends(batch, outcomes)])
                    self._without_text += sum(not len(document.embeddings) for document in batch.documents)
                    on_progress(self._progress())
                    self._check_dead_letters(stopped)
        finally:
            # An error on its way out matters more than one of saving how far the run got.
            with suppress(IngestError):
                self._accounts.save()
        if not stopped.is_set():
            self._accounts.complete(read=self._reader.read)
            self.complete = True

    def report(self, index: str, *, sent_again: int) -> Report:
        """How the run ended."""
        accounts = self._accounts
        models = (self._profile.generator, self._profile.encoder)
        return Report(
            index=index,
            source=self._source.identity,
            ledger=accounts.ledger,
            complete=self.complete,
            seconds=time.monotonic() - self._began,
            skipped=accounts.skipped,
            without_text=self._without_text,
            duplicates=self._reader.duplicates,
            sent_again=sent_again,
            dead_letters=str(accounts.dead_letters) if accounts.ledger.dead_lettered else None,
            models=[model.identity for model in models if model],
        )

    def _enriched(self, stages: Stages) -> Iterable[Batch[EnrichedDocument]]:
        items = self._source.items(self._accounts.skipped)
        read = stages.ahead(self._reader.batches(items), n_items=_AHEAD, name="read")
        expanded = stages.ahead(map(self._expansion, read), n_items=_AHEAD, name="expand")
        return stages.ahead(map(self._embedding, expanded), n_items=_AHEAD, name="embed")

    def _written(
        self, batches: Iterable[Batch[EnrichedDocument]], writer: BulkWriter, stopped: threading.Event
    ) -> Iterator[tuple[Batch[EnrichedDocument], list[Outcome]]]:
        """Writes several batches at once and gives them back in their order, with how each document ended."""
        in_flight: deque[tuple[Batch[EnrichedDocument], Future[list[Outcome]]]] = deque()

        def write(batch: Batch[EnrichedDocument]) -> list[Outcome]:
            return writer.write([index_action(document, self._profile) for document in batch.documents])

        with ThreadPoolExecutor(writer.concurrency, thread_name_prefix="write") as pool:
            try:
                for batch in batches:
                    while in_flight and (len(in_flight) == writer.concurrency or _share_ids(batch, in_flight)):
                        written, future = in_flight.popleft()
                        yield written, future.result()
                    in_flight.append((batch, pool.submit(write, batch)))
                while in_flight:
                    written, future = in_flight.popleft()
                    yield written, future.result()
            except RunStopped:
                return  # What is not answered for is done by the next run.
            except BaseException:
                stopped.set()  # Other requests in flight need not be patient any more.
                raise

    def _check_dead_letters(self, stopped: threading.Event) -> None:
        dead = self._accounts.ledger.dead_lettered
        if dead and self._strict:
            stopped.set()
        elif dead > self._max_dead_letters:
            raise IngestError(
                f"{dead:,} dead letters, ingest.max_errors allows {self._max_dead_letters:,}: see "
                f"{self._accounts.dead_letters} for the reasons, then run it again"
            )

    def _progress(self) -> Progress:
        skipped = self._accounts.skipped
        return Progress(
            read=skipped + self._reader.read,
            expanded=skipped + self._expansion.items,
            embedded=skipped + self._embedding.items,
            answered=self._accounts.ledger.answered,
            skipped=skipped,
            total=self._source.total(),
            seconds=time.monotonic() - self._began,
        )


def _ends(batch: Batch[EnrichedDocument], outcomes: list[Outcome]) -> list[tuple[SourceItem, Outcome]]:
    return [(enriched.document, outcome) for enriched, outcome in zip(batch.documents, outcomes, strict=True)]


def _share_ids(batch: Batch[EnrichedDocument], in_flight: Iterable[tuple[Batch[EnrichedDocument], object]]) -> bool:
    """Whether a document comes again while its earlier version may still be sent again."""
    ids = {enriched.document.doc_id for enriched in batch.documents}
    return any(enriched.document.doc_id in ids for earlier, _ in in_flight for enriched in earlier.documents)
