"""The stages of a run as Ray carries them: the same classes as in one process, each in a pool of its own.

What is sent between machines is a `Part`: a batch of a part of the source, or the mark that the part is at its end.
Passwords are no part of it: each machine reads its own settings.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from threading import Event
from typing import Any

import msgspec

from bridge.profile import IndexProfile
from bridge.records import Document, EnrichedDocument
from bridge.settings import IngestSettings
from ingest.books.ledger import Outcome
from ingest.ray.reach import Reach
from ingest.runs.run import BATCH_DOCUMENTS, Changed
from ingest.sources.source import Source, SourceItem
from ingest.stages.batches import Batch, BatchReader, Stage
from ingest.stages.embedding import Embedding
from ingest.stages.expansion import Expansion
from ingest.stages.models import Models
from ingest.stages.stamps import ChangeFilter, recipe, stale, stamp, text_stamp
from ingest.writing.actions import index_action, update_action
from ingest.writing.retry import patiently
from ingest.writing.writer import BulkLimits, BulkWriter

Row = dict[str, Any]
"""Ray's unit; ours have the one key `part`."""


@dataclass(frozen=True)
class Job:
    """What every machine must know. `open_models` is called once in each actor that runs models. `in_place`: the
    source is the index itself, in whose documents only our object is set, as a backfill does."""

    source: Source[Any]
    index: str
    profile: IndexProfile
    settings: IngestSettings
    reach: Reach
    open_models: Callable[[], Models]
    in_place: bool = False

    @property
    def recipe(self) -> str:
        """How our fields are made; see `ingest.stages.stamps.recipe`."""
        return recipe(self.profile, self.settings)

    def changed(self) -> Changed:
        """Tells which documents have to be made."""
        if self.in_place:
            return partial(stale, profile=self.profile, recipe=self.recipe)
        compare = ChangeFilter(self.reach.client(), self.index, self.profile, self.recipe).changed
        return patiently(compare, BulkLimits.of(self.settings).retry, Event())


@dataclass(frozen=True, slots=True)
class Part:
    """A batch on its way, or how its items ended. `n_read` is set only in the last one of a part of the source: the
    number of its items, so that whoever gathers the parts knows of every item."""

    batch: Batch[Any]
    ended: list[tuple[SourceItem, Outcome]]
    n_read: int | None = None
    sent_again: int = 0
    without_text: int = 0


def parts(row: Mapping[str, Any], job: Job) -> Iterator[Row]:
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
    """Leaves out what the index holds just so; predicts queries and embeds the rest."""

    def __init__(self, job: Job) -> None:
        models = job.open_models()
        made_from = text_stamp if job.in_place else stamp
        self._changed = job.changed()
        self._expansion = Stage(Expansion.of(job.profile, models, job.settings))
        self._embedding = Stage(Embedding.of(job.profile, models, partial(made_from, job.recipe)))

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

    def __init__(self, job: Job) -> None:
        limits = BulkLimits.of(job.settings)
        self._action = partial(update_action if job.in_place else index_action, profile=job.profile)
        self._writer = BulkWriter(job.reach.client(), job.index, limits, stopped=Event())

    def __call__(self, row: Row) -> Row:
        part: Part = row["part"]
        enriched: list[EnrichedDocument] = list(part.batch.documents)
        before = self._writer.sent_again
        outcomes = self._writer.write([self._action(document) for document in enriched])
        written = [(each.document, outcome) for each, outcome in zip(enriched, outcomes, strict=True)]
        done = Part(
            Batch([], []),
            [(_told(item, outcome), outcome) for item, outcome in [*part.batch.ended, *written]],
            n_read=part.n_read,
            sent_again=self._writer.sent_again - before,
            without_text=sum(not document.passages for document in enriched),
        )
        return {"part": done}


def _told(item: SourceItem, outcome: Outcome) -> SourceItem:
    """The item as far as the books need it: whole only where it becomes a dead letter."""
    if isinstance(item, Document) and outcome.kind != "dead_lettered":
        without_texts: Document = msgspec.structs.replace(item, body=b"", texts={})
        return without_texts
    return item
