"""Ingest: from a source of documents into an index that is made for them."""

from dataclasses import replace
from typing import Any

from bridge.cluster import index as indices
from bridge.cluster.bulk_load import tuned_for_load
from ingest.books.report import Report
from ingest.job import Job
from ingest.runs.opened_run import opened_run
from ingest.sources.source import Source
from ingest.stages.stamps import ChangeFilter, recipe
from ingest.writing.retry import patiently
from ingest.writing.writer import BulkLimits


def run_ingest(source: Source[Any], job: Job) -> Report:
    """Enriches the documents of a source and writes them to an index that exists; those that the index holds
    already, unchanged, are left alone. A run that was cut off goes on from its checkpoint.

    Raises:
        IndexUnsuitable: the index cannot hold what the profile makes; nothing was written.
        CheckpointUnusable: the state folder is in use, or its checkpoint is damaged or of another run.
        BridgeError: what `Run.send` says; a checkpoint is kept.
    """
    client, settings = job.client, job.settings
    job = replace(job, profile=indices.fitted(client, job.profile))
    state = indices.check(client, job.index, job.profile)
    indices.refuse_data_stream(state)
    with opened_run(source, state, job, in_place=False) as run:
        indices.keep_profile(client, state, job.profile)
        # A run that was killed just now may have left documents that no search sees yet.
        client.indices.refresh(index=state.name)
        is_empty = indices.count(client, state.name) == 0
        compare = ChangeFilter(client, state.name, job.profile, recipe(job.profile, settings)).changed
        with tuned_for_load(client, state.name, is_empty=is_empty, replicas=settings.load_replicas):
            run.send(
                source.items(run.skipped),
                changed=None if is_empty else patiently(compare, BulkLimits.of(settings).retry, job.stopped),
                on_progress=job.on_progress or (lambda _: None),
                total=source.total(),
            )
        run.finish()
        if not job.stopped.is_set():
            client.indices.refresh(index=state.name)
        return run.report(state.name, source.identity)
