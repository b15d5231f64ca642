"""Ingest: from a source of documents into an index that is made for them."""

from dataclasses import replace
from typing import Any

from bridge.cluster import index as indices
from bridge.cluster.bulk_load import tuned_for_load
from ingest.books.books import Books
from ingest.books.ledger import Report
from ingest.job import Job
from ingest.runs.run import LOCAL, Executor
from ingest.sources.source import Source
from ingest.stages.stamps import recipe


def run_ingest(source: Source[Any], job: Job, executor: Executor = LOCAL) -> Report:
    """Enriches the documents of a source and writes them to an index that exists; those that the index holds
    already, unchanged, are left alone. A run that was cut off goes on from its checkpoint.

    Raises:
        IndexUnsuitable: the index cannot hold what the profile makes; nothing was written.
        CheckpointUnusable: the state folder is in use, or its checkpoint is damaged or of another run.
        BridgeError: what `StartedRun.send` says; a checkpoint is kept.
    """
    client = job.client
    profile = indices.fitted(client, job.profile)
    state = indices.check(client, job.index, profile)
    indices.refuse_data_stream(state)
    profile = indices.as_kept(profile, state)
    job = replace(job, index=state.name, profile=profile)
    books = Books(
        job,
        source,
        index_identity=indices.identity(state),
        recipe=recipe(profile, job.settings),
        in_order=executor.in_order,
    )
    with books, executor.start(job, books, in_place=False) as run:
        indices.keep_profile(client, state, profile)
        # A run that was killed just now may have left documents that no search sees yet.
        client.indices.refresh(index=state.name)
        is_empty = indices.count(client, state.name) == 0
        with tuned_for_load(client, state.name, is_empty=is_empty, replicas=job.settings.load_replicas):
            run.send(source, is_empty=is_empty)
        books.complete()
        if not job.stopped.is_set():
            client.indices.refresh(index=state.name)
        return books.report()
