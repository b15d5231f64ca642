"""A run with its books open: what files and an index in use have in common."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from bridge.cluster import index as indices
from ingest.books.accounts import Accounts
from ingest.job import Job
from ingest.runs.run import Run
from ingest.sources.source import Source
from ingest.stages.stamps import recipe, stamp, text_stamp
from ingest.writing.actions import index_action, update_action
from ingest.writing.rate_limit import Pace
from ingest.writing.writer import BulkLimits, BulkWriter


@contextmanager
def opened_run(
    source: Source[Any],
    state: indices.IndexState,
    job: Job,
    *,
    in_place: bool,
) -> Iterator[Run]:
    """A run from `source` into the index `state`. `in_place`: the source gives parts of documents that are there
    already, of which our object is set; else whole documents.

    Raises:
        CheckpointUnusable: the state folder is in use, or its checkpoint is damaged or of another run.
        IngestError: the dead letters cannot be written.
    """
    made_by = recipe(job.profile, job.settings)
    with Accounts(
        job.state_folder,
        source,
        index=state.name,
        index_identity=indices.identity(state),
        recipe=made_by,
        from_start=job.from_start,
        partial=in_place,
    ) as accounts:
        yield Run(
            accounts,
            job.profile,
            job.models,
            job.settings,
            BulkWriter(job.client, state.name, BulkLimits.of(job.settings), stopped=job.stopped),
            stamp=partial(text_stamp if in_place else stamp, made_by),
            action=update_action if in_place else index_action,
            stopped=job.stopped,
            strict=job.strict,
            pace=Pace.of(job.settings, job.client, state.name, stopped=job.stopped),
        )
