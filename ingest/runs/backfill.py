"""Backfill in place: enriches an index that an application wrote, while the application goes on writing.

Only our object is set, by partial updates that hold only for the version that was read; a document that
changed meanwhile is read again. One that was deleted stays deleted.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from opensearchpy import OpenSearch

from bridge.cluster import index as indices
from bridge.profile import IndexProfile
from bridge.settings import IngestSettings
from ingest.books.report import Progress, Report
from ingest.runs.opened_run import opened_run
from ingest.sources.index import IndexDocuments
from ingest.stages.changes import stale
from ingest.stages.models import Models
from ingest.stages.stamp import recipe
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


def run_backfill(
    index: str,
    *,
    profile: IndexProfile,
    models: Models,
    client: OpenSearch,
    settings: IngestSettings,
    state_folder: Path,
    on_progress: Callable[[Progress], None] | None = None,
    stopped: threading.Event | None = None,
) -> BackfillReport:
    """Enriches every document of an index that is not enriched as `profile` and `settings` ask.

    A run that was cut off is simply run again: what is done is recognised by its stamp.

    Raises:
        IndexUnsuitable: updates would lose data or the vectors could not be searched; nothing was changed.
        BridgeError: what `Run.send` and `IndexDocuments` say.
    """
    stopped = stopped or threading.Event()
    profile = indices.fitted(client, profile)
    state = indices.extend(client, index, profile)
    indices.keep_profile(client, state, profile)
    texts = profile.text_fields
    source = IndexDocuments(
        client,
        state.name,
        [*texts, profile.stamp_field],
        text_fields=texts,
        retry=BulkLimits.of(settings).retry,
        stopped=stopped,
    )
    with opened_run(
        source,
        state,
        profile=profile,
        models=models,
        client=client,
        settings=settings,
        state_folder=state_folder,
        stopped=stopped,
        in_place=True,
        from_start=True,
    ) as run:
        send = partial(
            run.send,
            changed=partial(stale, profile=profile, recipe=recipe(profile, settings)),
            on_progress=on_progress or (lambda _: None),
            total=source.total(),
        )
        send(source.items())
        read_again = 0
        for _ in range(ROUNDS):
            if not run.conflicts or stopped.is_set():
                break
            changed, run.conflicts = run.conflicts, []
            read_again += len(changed)
            send(source.read_again(changed))
        run.finish()
        return BackfillReport(run.report(state.name, source.identity), read_again, len(run.conflicts))
