"""Backfill in place: enriches an index that an application wrote, while the application goes on writing.

Only our object is set, by partial updates that hold only for the version that was read; a document that
changed meanwhile is read again. One that was deleted stays deleted.
"""

from dataclasses import dataclass, replace
from functools import partial

from bridge.cluster import index as indices
from ingest.books.report import Report
from ingest.job import Job
from ingest.runs.opened_run import opened_run
from ingest.sources.index import IndexDocuments
from ingest.stages.stamps import recipe, stale
from ingest.writing.writer import BulkLimits

ROUNDS = 5
"""How often documents that changed are read again; whoever changes faster is left to the next run."""


@dataclass(frozen=True, slots=True)
class BackfillReport:
    """`ledger` of `report` counts a document again each time it was read again. `read_again`: because it had
    changed; `left`: documents that changed each time, and are not enriched."""

    report: Report
    read_again: int
    left: int


def run_backfill(job: Job) -> BackfillReport:
    """Enriches every document of an index that is not enriched as the job's profile and settings ask.

    A run that was cut off is simply run again: what is done is recognised by its stamp.

    Raises:
        IndexUnsuitable: updates would lose data or the vectors could not be searched; nothing was changed.
        BridgeError: what `Run.send` and `IndexDocuments` say.
    """
    client = job.client
    profile = indices.fitted(client, job.profile)
    job = replace(job, profile=profile, from_start=True)
    state = indices.extend(client, job.index, profile)
    indices.keep_profile(client, state, profile)
    texts = profile.text_fields
    source = IndexDocuments(
        client,
        state.name,
        [*texts, profile.stamp_field],
        text_fields=texts,
        retry=BulkLimits.of(job.settings).retry,
        stopped=job.stopped,
    )
    with opened_run(source, state, job, in_place=True) as run:
        send = partial(
            run.send,
            changed=partial(stale, profile=profile, recipe=recipe(profile, job.settings)),
            on_progress=job.on_progress or (lambda _: None),
            total=source.total(),
        )
        send(source.items())
        read_again = 0
        for _ in range(ROUNDS):
            if not run.conflicts or job.stopped.is_set():
                break
            changed, run.conflicts = run.conflicts, []
            read_again += len(changed)
            send(source.read_again(changed))
        run.finish()
        return BackfillReport(run.report(state.name, source.identity), read_again, len(run.conflicts))
