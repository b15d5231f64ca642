"""Enrich from a program: what `neural-bridge ingest` and `neural-bridge backfill` do, as two functions.

`from bridge import ingest, backfill` is their public place.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Literal

from opensearchpy import OpenSearch

from bridge.cluster import companion
from bridge.cluster import index as indices
from bridge.cluster.connection import connect
from bridge.errors import UsageError
from bridge.folders import default_state_folder
from bridge.profile import IndexProfile
from bridge.settings import Settings, load_settings
from ingest.books.ledger import Progress, Report
from ingest.job import Job
from ingest.runs.backfill import BackfillReport, run_backfill
from ingest.runs.beside import BesideReport, run_beside
from ingest.runs.ingest import run_ingest
from ingest.runs.query_filter import sample_of_files, sample_of_index, with_filter_threshold
from ingest.runs.way import begun, choose
from ingest.sources.documents import METADATA_ID, FieldChoice
from ingest.sources.files import FileDocuments
from ingest.sources.source import SourceItem
from ingest.stages.models import load_models, profile_for

OnProgress = Callable[[Progress], None]


def ingest(
    sources: Sequence[str],
    index: str,
    settings: Settings | None = None,
    *,
    text_fields: Sequence[str] = (),
    id_field: str = METADATA_ID,
    analyzer: str = "english",
    state_folder: Path | None = None,
    on_progress: OnProgress | None = None,
) -> Report:
    """Enriches documents and writes them to `index`, which is made unless it exists.

    Documents that the index holds unchanged are left alone; a run that was stopped goes on where it was.

    Args:
        sources: files, globs or URLs of JSON lines, JSON arrays, bulk bodies, CSV, TSV or Parquet.
        settings: by default those of the environment and of `BRIDGE_CONFIG`.
        text_fields: fields to enrich, in reading order; by default those of an index that is enriched already.
        id_field: field that holds a document's id.
        analyzer: of the text fields of a new index.
        state_folder: for checkpoint and dead letters; by default one per index in the user's state folder.

    Raises:
        UsageError: a source does not exist, or no text field is known.
        BridgeError: as `bridge.errors` lists; what was written stays, and the next run goes on there.
    """
    settings = settings or load_settings()
    client = connect(settings.cluster)
    existing = indices.find(client, index)
    if existing is not None:
        companion.refuse_ingest(client, existing, settings.companion.prefix)
    kept = existing.profile if existing else None
    names = _text_fields(text_fields, kept, index)
    fields = FieldChoice(names, id_field)
    source = FileDocuments(sources, fields, max_doc_bytes=settings.ingest.max_doc_bytes)
    sample = partial(sample_of_files, source)
    job = _job("ingest", index, client, settings, names, kept, sample, state_folder, on_progress)
    if existing is None:
        indices.create(client, index, job.profile, analyzer=analyzer)
    return run_ingest(source, job)


def backfill(
    index: str,
    settings: Settings | None = None,
    *,
    text_fields: Sequence[str] = (),
    way: Literal["in_place", "beside"] | None = None,
    state_folder: Path | None = None,
    on_progress: OnProgress | None = None,
) -> BackfillReport | BesideReport:
    """Enriches the documents of an index, while its application goes on writing.

    A run that was stopped is simply run again.

    Args:
        way: in the documents themselves, or in an index of the bridge's own, so that this one is only read. By default
            as the index was begun, else beside if anything speaks against in place.
        index, settings, text_fields, state_folder, on_progress: as of `ingest`.

    Raises:
        UsageError: no text field is known.
        IndexUnsuitable: the index does not exist, or cannot be enriched this way; nothing was changed.
        BridgeError: as `bridge.errors` lists.
    """
    settings = settings or load_settings()
    client, prefix = connect(settings.cluster), settings.companion.prefix
    state = indices.look(client, index)
    kept = begun(client, state, prefix)
    names = _text_fields(text_fields, kept, index)
    sample = partial(sample_of_index, client, index, names)
    job = _job("backfill", index, client, settings, names, kept, sample, state_folder, on_progress)
    chosen = choose(client, state, job.profile, settings.ingest, kept=kept, wanted=way, prefix=prefix)
    return run_backfill(job) if chosen.prefix is None else run_beside(job, chosen.prefix)


def _text_fields(names: Sequence[str], kept: IndexProfile | None, index: str) -> tuple[str, ...]:
    chosen = tuple(names) or tuple(kept.text_fields if kept else ())
    if not chosen:
        raise UsageError(f"{index} is not enriched yet: name the fields that hold its text with text_fields")
    return chosen


def _job(
    task: Literal["ingest", "backfill"],
    index: str,
    client: OpenSearch,
    settings: Settings,
    names: Sequence[str],
    kept: IndexProfile | None,
    sample: Callable[[], Iterable[SourceItem]],
    state_folder: Path | None,
    on_progress: OnProgress | None,
) -> Job:
    models = load_models(settings.ingest)
    passages = kept.passages if kept else None
    profile = profile_for(models, names, passages=passages, object_field=settings.ingest.object_field, kept=kept)
    return Job(
        index,
        with_filter_threshold(profile, kept, models, settings.ingest, sample),
        models,
        client,
        settings.ingest,
        state_folder or default_state_folder(task, index),
        on_progress,
    )
