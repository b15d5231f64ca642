"""Backfill in place on several machines; what `ingest.backfill` does in one process.

All machines read one point in time, each a slice of it at a time. Where it is lost, the index is read anew: what
is enriched already is recognised. Documents that changed between reading and writing are read again.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from threading import Event

from opensearchpy import OpenSearch

from bridge.cluster import index as indices
from bridge.errors import AnswerNotUnderstood
from bridge.profile import IndexProfile
from bridge.settings import IngestSettings
from ingest.books.report import Progress
from ingest.ray.index_splits import SLICE_DOCUMENTS, Changed, Slice, SplitIndex, changed, slices
from ingest.ray.reach import Reach
from ingest.ray.run import Pools, opened_ray_run
from ingest.ray.stages import Job
from ingest.runs.backfill import ROUNDS, BackfillReport
from ingest.sources.index import IndexDocuments, PointInTimeLost
from ingest.stages.models import Models
from ingest.writing.retry import Patience
from ingest.writing.writer import BulkLimits


def run_ray_backfill(
    index: str,
    *,
    profile: IndexProfile,
    client: OpenSearch,
    reach: Reach,
    settings: IngestSettings,
    state_folder: Path,
    pools: Pools,
    slice_documents: int = SLICE_DOCUMENTS,
    open_models: Callable[[], Models] | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    stopped: Event | None = None,
) -> BackfillReport:
    """Enriches every document of an index that is not enriched as `profile` and `settings` ask, on Ray's machines.

    `client` is this machine's, `reach` lets every machine have its own. A run that was cut off is simply run
    again.

    Raises:
        IndexUnsuitable, BridgeError: as `run_backfill` says.
        LedgerUnbalanced: a part did not come back, or came twice.
    """
    stopped = stopped or Event()
    profile = indices.fitted(client, profile)
    state = indices.extend(client, index, profile)
    indices.keep_profile(client, state, profile)
    limits = BulkLimits.of(settings)
    texts = tuple(profile.text_fields)
    fields = (*texts, profile.stamp_field)
    source = IndexDocuments(client, state.name, fields, text_fields=texts, retry=limits.retry, stopped=stopped)
    documents = SplitIndex(reach, state.name, fields, texts, limits.retry)
    job = Job(
        source=documents,
        index=state.name,
        profile=profile,
        settings=settings,
        reach=reach,
        open_models=open_models or pools.opener(settings),
        in_place=True,
    )
    with opened_ray_run(
        job, source, state, pools=pools, state_folder=state_folder, on_progress=on_progress, stopped=stopped
    ) as run:

        def send(splits: Sequence[Slice | Changed], pit: str = "") -> None:
            run.send(replace(job, source=replace(documents, pit=pit, splits=splits)))

        _send_every_document(
            lambda pit: send(slices(source.total(), source.n_shards, slice_documents=slice_documents), pit),
            source,
            lambda: run.written,
            lambda: Patience(limits.retry, stopped),
        )
        read_again = 0
        for _ in range(ROUNDS):
            if not run.conflicts or stopped.is_set():
                break
            again, run.conflicts = run.conflicts, []
            read_again += len(again)
            send(changed(again))
        run.finish()
        return BackfillReport(run.report(state.name, source.identity, profile), read_again, len(run.conflicts))


def _send_every_document(
    send: Callable[[str], None],
    source: IndexDocuments,
    n_written: Callable[[], int],
    new_patience: Callable[[], Patience],
) -> None:
    """Sends all slices of a point in time, and of another one where it is lost.

    Raises:
        AnswerNotUnderstood: they are lost again and again, without anything being written meanwhile.
    """
    patience = new_patience()
    while True:
        before = n_written()
        try:
            with source.point_in_time() as pit:
                send(pit)
            return
        except PointInTimeLost as lost:
            if n_written() > before:
                patience = new_patience()
            if not patience.wait():
                raise AnswerNotUnderstood(f"{lost}; it happens again and again") from lost
