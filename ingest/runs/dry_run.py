"""A dry run: reads all of a source and reports what an ingest would do; nothing is written."""

import random
from collections import Counter
from typing import Any

import msgspec

from bridge.cluster import index as indices
from bridge.cluster.connection import capabilities
from bridge.cluster.dialects import dialect_of
from bridge.cluster.field_security import refuse_restricted
from bridge.cluster.schema import analysers, differences, missing_fields, new_index, object_properties
from bridge.records import Document
from ingest.job import Job
from ingest.runs.plan import measure_speed
from ingest.runs.run import BATCH_DOCUMENTS
from ingest.sources.source import Source
from ingest.stages.batches import BatchReader
from ingest.stages.stamps import ChangeFilter, recipe

_SAMPLE = 1000
_EXAMPLES = 5


class DryRun(msgspec.Struct, frozen=True):
    """What an ingest would do.

    Of `read` items, `to_write` are documents to write, of which `without_text` get no vector; the index already has
    `unchanged` ones; `superseded` ones come again later; `dead_letters` counts the others by cause, with the first
    ones in `examples`. `mapping`: of a new index (`exists` is false), or the fields that the index lacks. `obstacles`:
    one sentence each. `measured` documents went through the models at `documents_per_s`, from which `hours` follow.
    """

    index: str
    source: str
    exists: bool
    read: int
    to_write: int
    without_text: int
    unchanged: int
    superseded: int
    dead_letters: dict[str, int]
    examples: list[str]
    mapping: dict[str, Any]
    obstacles: list[str]
    measured: int
    documents_per_s: float
    hours: float


def dry_run_of(source: Source[Any], job: Job, *, analyzer: str) -> DryRun:
    """Reads all of `source`, compares it with the index if there is one, and times the models on a sample.

    Raises:
        IndexUnsuitable: the name stands for several indices.
        AccessDenied: some of its documents or fields are hidden from this user.
        BridgeError: what the source, the models and the cluster say.
    """
    client, settings = job.client, job.settings
    dialect = dialect_of(capabilities(client))
    profile = indices.fitted(client, job.profile)
    state = indices.find(client, job.index)
    if state is not None:
        profile = indices.as_kept(profile, state)
    if state is not None:
        refuse_restricted(client, state.name)
    made_by = recipe(profile, settings)
    reader = BatchReader(
        ChangeFilter(client, state.name, profile, made_by).changed if state else None,
        max_items=settings.bulk_documents,
        max_texts=BATCH_DOCUMENTS,
        last_wins=settings.on_duplicate == "last",
    )
    ends: Counter[str] = Counter()
    causes: Counter[str] = Counter()
    examples: list[str] = []
    sample = _Sample()
    without_text = 0
    for batch in reader.batches(source.items()):
        for document in batch.documents:
            sample.add(document)
            without_text += not any(text.strip() for text in document.texts.values())
        for item, outcome in batch.ended:
            ends[outcome.kind] += 1
            if outcome.kind == "dead_lettered" and outcome.failure is not None:
                causes[outcome.failure.kind] += 1
                examples.append(f"{item.position}: {outcome.failure.reason}")
                del examples[_EXAMPLES:]
    measured = measure_speed(sample.documents, profile, job.models, settings, made_by)
    if state is None:
        mapping = new_index(profile, dialect, analyzer=analyzer)["mappings"]["properties"]
    elif missing_fields(profile, state.mapping):
        mapping = object_properties(profile, dialect, **analysers(state.mapping, profile))
    else:
        mapping = {}
    return DryRun(
        index=state.name if state else job.index,
        source=source.identity,
        exists=state is not None,
        read=reader.read,
        to_write=sample.offered,
        without_text=without_text,
        unchanged=ends["unchanged"],
        superseded=ends["superseded"],
        dead_letters=dict(causes.most_common()),
        examples=examples,
        mapping=mapping,
        obstacles=differences(profile, state.mapping, state.settings) if state else [],
        measured=len(measured.documents),
        documents_per_s=round(measured.per_s, 1),
        hours=round(measured.hours(sample.offered), 6),
    )


class _Sample:
    """A random sample of a stream, in which each document is as likely as any other (Vitter 1985, algorithm R)."""

    def __init__(self) -> None:
        self.documents: list[Document] = []
        self.offered = 0
        self._random = random.Random(0)

    def add(self, document: Document) -> None:
        self.offered += 1
        if len(self.documents) < _SAMPLE:
            self.documents.append(document)
        elif (place := self._random.randrange(self.offered)) < _SAMPLE:
            self.documents[place] = document
