"""Ingest: from a source of documents into an index that is made for them."""

import threading
from collections.abc import Callable
from pathlib import Path

from opensearchpy import OpenSearch

from bridge.cluster import index as indices
from bridge.cluster.bulk_load import tuned_for_load
from bridge.profile import IndexProfile
from bridge.settings import IngestSettings
from ingest.books.report import Progress, Report
from ingest.runs.opened_run import opened_run
from ingest.sources.opening import Source
from ingest.stages.changes import ChangeFilter
from ingest.stages.models import Models
from ingest.stages.stamp import recipe
from ingest.writing.retry import patiently
from ingest.writing.writer import BulkLimits


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
    letters; a run that was cut off goes on from there unless `from_start`. `stopped` and `strict`: see
    `Run`.

    Raises:
        IndexUnsuitable: the index cannot hold what the profile makes; nothing was written.
        CheckpointUnusable: the state folder is in use, or its checkpoint is damaged or of another run.
        BridgeError: what `Run.send` says; a checkpoint is kept.
    """
    profile = indices.fitted(client, profile)
    state = indices.check(client, index, profile)
    indices.refuse_data_stream(state)
    stopped = stopped or threading.Event()
    with opened_run(
        source,
        state,
        profile=profile,
        models=models,
        client=client,
        settings=settings,
        state_folder=state_folder,
        stopped=stopped,
        in_place=False,
        from_start=from_start,
        strict=strict,
    ) as run:
        indices.keep_profile(client, state, profile)
        # A run that was killed just now may have left documents that no search sees yet.
        client.indices.refresh(index=state.name)
        is_empty = indices.count(client, state.name) == 0
        compare = ChangeFilter(client, state.name, profile, recipe(profile, settings)).changed
        with tuned_for_load(client, state.name, is_empty=is_empty, replicas=settings.load_replicas):
            run.send(
                source.items(run.skipped),
                changed=None if is_empty else patiently(compare, BulkLimits.of(settings).retry, stopped),
                on_progress=on_progress or (lambda _: None),
                total=source.total(),
            )
        run.finish()
        if not stopped.is_set():
            client.indices.refresh(index=state.name)
        return run.report(state.name, source.identity)
