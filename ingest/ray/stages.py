"""The stages of a run as Ray runs them: the same classes as in one process, each in a pool of its own.

Machines exchange `Part`s: a batch of a part of the source, or the mark that the part is at its end. Passwords do not
travel: each machine reads its own settings.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from threading import Event
from typing import Any

import msgspec

from bridge.profile import IndexProfile
from bridge.records import Document, EnrichedDocument
from bridge.settings import IngestSettings
from ingest.books.ledger import Outcome
from ingest.ray.cluster_address import ClusterAddress
from ingest.runs.run import BATCH_DOCUMENTS, action_of, change_filter, stamp_of
from ingest.sources.source import Source, SourceItem
from ingest.stages.batches import Batch, BatchReader, Stage
from ingest.stages.embedding import Embedding
from ingest.stages.expansion import Expansion
from ingest.stages.models import Models
from ingest.stages.stamps import recipe
from ingest.writing.writer import BulkLimits, BulkWriter

Row = dict[str, Any]
"""Ray's unit; ours have the one key `part`."""


@dataclass(frozen=True)
class WorkerJob:
    """The part of a run's job that travels to every machine. `open_models` is called once in each actor that runs
    models; `in_place` as for `ingest.runs.run.Executor.start`."""

    source: Source[Any]
    index: str
    profile: IndexProfile
    settings: IngestSettings
    cluster: ClusterAddress
    open_models: Callable[[], Models]
    in_place: bool = False


@dataclass(frozen=True, slots=True)
class Part:
    """A batch on its way, or how its items ended. `n_read` is set only in the last one of a part of the source: the
    number of its items, so that whoever gathers the parts knows of every item."""

    batch: Batch[Any]
    ended: list[tuple[SourceItem, Outcome]]
    n_read: int | None = None
    sent_again: int = 0
    without_text: int = 0


def parts(row: Mapping[str, Any], job: WorkerJob) -> Iterator[Row]:
    """The batches of the source's part in `row`; the same ones each time, so that lost ones can be made again."""
    reader = BatchReader(
        None,
        max_items=job.settings.bulk_documents,
        max_texts=BATCH_DOCUMENTS,
        last_wins=job.settings.on_duplicate == "last",
    )
    for batch in reader.batches(job.source.read(row["part"])):
        yield {"part": Part(batch, [])}
    yield {"part": Part(Batch([], []), [], n_read=reader.read)}


class Enrich:
    """Leaves out unchanged documents; predicts queries and embeds the rest."""

    def __init__(self, job: WorkerJob) -> None:
        models = job.open_models()
        client, in_place = job.cluster.client(), job.in_place
        self._changed = change_filter(client, job.index, job.profile, job.settings, Event(), in_place=in_place)
        self._expansion = Stage(Expansion.of(job.profile, models, job.settings))
        stamp = stamp_of(job.profile, recipe(job.profile, job.settings), in_place=in_place)
        self._embedding = Stage(Embedding.of(job.profile, models, stamp))

    def __call__(self, row: Row) -> Row:
        part: Part = row["part"]
        documents = self._changed(part.batch.documents)
        changed = {(document.doc_id, document.routing) for document in documents}
        unchanged = [
            (each, Outcome("unchanged")) for each in part.batch.documents if (each.doc_id, each.routing) not in changed
        ]
        batch = self._embedding(self._expansion(Batch(documents, [*part.batch.ended, *unchanged])))
        return {"part": replace(part, batch=batch)}


class Write:
    """Writes a batch and answers for each of its items."""

    def __init__(self, job: WorkerJob) -> None:
        self._action = action_of(job.profile, in_place=job.in_place)
        limits = BulkLimits.of(job.settings)
        self._writer = BulkWriter(job.cluster.client(), job.index, limits, stopped=Event())

    def __call__(self, row: Row) -> Row:
        part: Part = row["part"]
        enriched: list[EnrichedDocument] = list(part.batch.documents)
        before = self._writer.sent_again
        outcomes = self._writer.write([self._action(document) for document in enriched])
        written = [(each.document, outcome) for each, outcome in zip(enriched, outcomes, strict=True)]
        done = Part(
            Batch([], []),
            [(_for_books(item, outcome), outcome) for item, outcome in [*part.batch.ended, *written]],
            n_read=part.n_read,
            sent_again=self._writer.sent_again - before,
            without_text=sum(not document.passages for document in enriched),
        )
        return {"part": done}


def _for_books(item: SourceItem, outcome: Outcome) -> SourceItem:
    """The item as the books need it: whole only if it becomes a dead letter."""
    if isinstance(item, Document) and outcome.kind != "dead_lettered":
        without_texts: Document = msgspec.structs.replace(item, body=b"", texts={})
        return without_texts
    return item
