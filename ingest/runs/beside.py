"""Backfill beside: enriches the documents of an index in its companion. The application's index is only read.

A pass writes what the companion lacks; further passes read what the application changed meanwhile, behind the last
change that was read. At the end documents that the application deleted leave the companion too.
"""

from dataclasses import dataclass, replace
from itertools import islice

import msgspec
from opensearchpy import OpenSearch

from bridge.cluster import companion
from bridge.cluster import index as indices
from bridge.cluster.field_security import refuse_restricted
from bridge.cluster.index import IndexState
from bridge.errors import IndexUnsuitable
from bridge.profile import IndexProfile
from bridge.records import Document
from ingest.books.books import Books
from ingest.books.ledger import Report
from ingest.books.state_folder import locked
from ingest.job import Job
from ingest.runs.ingest import tuned_for_load
from ingest.runs.removal import documents_by_stamp, remove
from ingest.runs.run import LOCAL, Executor, StartedRun
from ingest.sources.index import IndexDocuments
from ingest.stages.stamps import recipe
from ingest.writing.writer import BulkLimits, BulkWriter

_PASSES = 5
"""What the application changes after the last one is left to the next run, or to a follower."""


@dataclass(frozen=True, slots=True)
class BesideReport:
    """The index `companion` is complete if `report` is. `removed` documents were deleted by the application, and are
    gone from the companion."""

    report: Report
    companion: str
    removed: int


def run_beside(job: Job, prefix: str, executor: Executor = LOCAL) -> BesideReport:
    """Enriches every document of the job's index in its companion, which is made if there is none.

    A run that was cut off is simply run again: finished documents are recognised by their stamps.

    Raises:
        IndexUnsuitable: the texts cannot be read, or the companion was made for another profile; nothing was changed.
        AccessDenied: some documents or fields of the index are hidden from this user.
        BridgeError: what `StartedRun.send` and `IndexDocuments` say.
    """
    client = job.client
    source_state = indices.look(client, job.index)
    refuse_restricted(client, source_state.name)
    source = IndexDocuments(
        client,
        source_state.name,
        job.profile.text_fields,
        text_fields=job.profile.text_fields,
        image_field=job.profile.image_field,
        retry=BulkLimits.of(job.settings).retry,
        stopped=job.stopped,
        goes_on=True,
    )
    profile = msgspec.structs.replace(indices.fitted(client, job.profile), beside=source_state.name)
    with locked(job.state_folder):  # one that cannot be written leaves no companion behind
        state = _companion(client, source_state, source, profile, prefix)
    profile = indices.as_kept(profile, state)
    job = replace(job, index=state.name, profile=profile, from_start=True)
    books = Books(
        job,
        source,
        index_identity=indices.identity(state),
        recipe=recipe(profile, job.settings),
        in_place=True,
        in_order=executor.in_order,
    )
    with books, executor.start(job, books, in_place=False) as run:
        indices.keep_profile(client, state, profile)
        # A run that was killed just now may have left documents that no search sees yet.
        client.indices.refresh(index=state.name)
        is_empty = indices.count(client, state.name) == 0
        with tuned_for_load(client, state.name, is_empty=is_empty, replicas=job.settings.load_replicas):
            run.send(source, is_empty=is_empty)
        for _ in range(_PASSES - 1):
            written = books.ledger.written
            if job.stopped.is_set():
                break
            run.send(source)
            if books.ledger.written == written:
                break
        removed = 0 if job.stopped.is_set() else _remove_deleted(job, source, run)
        books.complete()
        client.indices.refresh(index=state.name)
        return BesideReport(books.report(), state.name, removed)


def _remove_deleted(job: Job, source: IndexDocuments, run: StartedRun) -> int:
    """Deletes from the companion, the index of `job`, what `source` has no longer; the number of these documents.

    A document that is made again meanwhile stays or is enriched again: a follower may have found it in the companion
    just before it was deleted there.
    """
    limits = BulkLimits.of(job.settings)
    job.client.indices.refresh(index=job.index)
    writer = BulkWriter(job.client, job.index, limits, stopped=job.stopped)
    documents = (item for item in documents_by_stamp(job).items() if isinstance(item, Document))
    removed = 0
    while page := list(islice(documents, limits.bulk_documents)):
        gone = list(source.missing(page))
        removed += remove(gone, writer)
        still_gone = {(each.doc_id, each.routing) for each in source.missing(gone)}
        if back := [each for each in gone if (each.doc_id, each.routing) not in still_gone]:
            run.send_again(source, back)
    return removed


def _companion(
    client: OpenSearch, source_state: IndexState, source: IndexDocuments, profile: IndexProfile, prefix: str
) -> IndexState:
    """The companion, ready to be written; nothing is changed before documents can be read."""
    state = companion.of(client, source_state, profile, prefix)
    next(source.sample(1), None)
    if state is None:
        try:
            return companion.create(client, source_state, profile, prefix)
        except IndexUnsuitable:
            # Another run has made it meanwhile, such as one that was killed while its request was under way.
            state = companion.of(client, source_state, profile, prefix)
            if state is None:
                raise
    return indices.check(client, state.name, profile)
