"""Backfill in place: enriches an index that an application wrote, while the application goes on writing.

Only our object is set, by partial updates that hold only for the version that was read; a document that
changed meanwhile is read again. One that was deleted stays deleted.
"""

from dataclasses import dataclass, replace

from bridge.cluster import index as indices
from ingest.books.books import Books
from ingest.books.ledger import Report
from ingest.job import Job
from ingest.runs.run import LOCAL, Executor
from ingest.sources.index import IndexDocuments
from ingest.sources.versions import refuse_external_versions
from ingest.stages.stamps import recipe
from ingest.writing.writer import BulkLimits

_ROUNDS = 5
"""How often changed documents are read again; those that keep changing are left to the next run."""


@dataclass(frozen=True, slots=True)
class BackfillReport:
    """`read_again` documents had changed and were read again, and `ledger` of `report` counts them each time; `left`
    documents changed every time and are not enriched."""

    report: Report
    read_again: int
    left: int


def run_backfill(job: Job, executor: Executor = LOCAL) -> BackfillReport:
    """Enriches every document of an index that is not enriched as the job's profile and settings say.

    A run that was cut off is simply run again: finished documents are recognised by their stamps.

    Raises:
        IndexUnsuitable: updates would lose data or the vectors could not be searched; nothing was changed.
        BridgeError: what `StartedRun.send` and `IndexDocuments` say.
    """
    client = job.client
    found = indices.look(client, job.index)
    indices.refuse_companion(found)
    refuse_external_versions(client, found, job.settings)
    profile = indices.fitted(client, job.profile)
    state = indices.check_in_place(client, job.index, profile)
    profile = indices.as_kept(profile, state)
    job = replace(job, index=state.name, profile=profile, from_start=True)
    source = IndexDocuments(
        client,
        state.name,
        [*profile.text_fields, profile.stamp_field],
        text_fields=profile.text_fields,
        image_field=profile.image_field,
        retry=BulkLimits.of(job.settings).retry,
        stopped=job.stopped,
        no_external_versions=job.settings.external_versions == "detect",
    )
    books = Books(
        job,
        source,
        index_identity=indices.identity(state),
        recipe=recipe(profile, job.settings),
        in_place=True,
        in_order=executor.in_order,
    )
    with books, executor.start(job, books, in_place=True) as run:
        next(source.sample(1), None)  # Nothing is changed before documents can be read.
        indices.keep_profile(client, indices.extend(client, state.name, profile), profile)
        run.send(source)
        read_again = 0
        for _ in range(_ROUNDS):
            if not books.conflicts or job.stopped.is_set():
                break
            changed, books.conflicts = books.conflicts, []
            read_again += len(changed)
            run.send_again(source, changed)
        books.complete()
        return BackfillReport(books.report(), read_again, len(books.conflicts))
