"""A run with its books open: what files and an index in use have in common."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from opensearchpy import OpenSearch

from bridge.cluster import index as indices
from bridge.profile import IndexProfile
from bridge.settings import IngestSettings
from ingest.books.accounts import Accounts
from ingest.runs.run import Run
from ingest.sources.opening import Source
from ingest.stages.models import Models
from ingest.stages.stamp import recipe, stamp, text_stamp
from ingest.writing.actions import index_action, update_action
from ingest.writing.rate_limit import Pace
from ingest.writing.writer import BulkLimits, BulkWriter


@contextmanager
def opened_run(
    source: Source,
    state: indices.IndexState,
    *,
    profile: IndexProfile,
    models: Models,
    client: OpenSearch,
    settings: IngestSettings,
    state_folder: Path,
    stopped: threading.Event,
    in_place: bool,
    from_start: bool,
    strict: bool = False,
) -> Iterator[Run]:
    """A run from `source` into the index `state`. `in_place`: the source gives parts of documents that are there
    already, of which our object is set; else whole documents. `from_start`: no checkpoint is gone on from.

    Raises:
        CheckpointUnusable: the state folder is in use, or its checkpoint is damaged or of another run.
        IngestError: the dead letters cannot be written.
    """
    made_by = recipe(profile, settings)
    with Accounts(
        state_folder,
        source,
        index=state.name,
        index_identity=indices.identity(state),
        recipe=made_by,
        from_start=from_start,
        partial=in_place,
    ) as accounts:
        yield Run(
            accounts,
            profile,
            models,
            settings,
            BulkWriter(client, state.name, BulkLimits.of(settings), stopped=stopped),
            stamp=partial(text_stamp if in_place else stamp, made_by),
            action=update_action if in_place else index_action,
            stopped=stopped,
            strict=strict,
            pace=Pace.of(settings, client, state.name, stopped=stopped),
        )
