"""Ingest on several machines; what `ingest.pipeline` does in one process.

Versions of one document in different splits may be written in any order: ids must be unique in the source.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from threading import Event
from typing import Protocol

from opensearchpy import OpenSearch

from bridge.cluster import index as indices
from bridge.cluster.bulk_load import without_refresh
from bridge.profile import IndexProfile
from bridge.settings import IngestSettings
from ingest.accounts import Accounts
from ingest.models import Models, load_models
from ingest.ray_run import Pools, RayRun, ray_at
from ingest.ray_stages import Job, SplitSource
from ingest.reach import Reach
from ingest.report import Progress, Report
from ingest.sources import Source


class NamedSplits(SplitSource, Source, Protocol):
    """A source that is read in splits, and named in the books."""


def run_ray_ingest(
    source: NamedSplits,
    *,
    index: str,
    profile: IndexProfile,
    client: OpenSearch,
    reach: Reach,
    settings: IngestSettings,
    state_folder: Path,
    pools: Pools,
    open_models: Callable[[], Models] | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    stopped: Event | None = None,
) -> Report:
    """Enriches what a source holds and writes it to an index that exists, on Ray's machines.

    `client` is this machine's, `reach` lets every machine have its own. `stopped`, once set, ends the run at the
    next part.

    Raises:
        IndexUnsuitable, CheckpointUnusable, BridgeError: as `run_ingest` says.
        LedgerUnbalanced: a part did not come back, or came twice.
    """
    stopped = stopped or Event()
    profile = indices.fitted(client, profile)
    state = indices.check(client, index, profile)
    indices.refuse_data_stream(state)
    job = Job(
        source=source,
        index=state.name,
        profile=profile,
        settings=settings,
        reach=reach,
        open_models=open_models or partial(load_models, settings.model_copy(update={"threads": pools.threads})),
    )
    with (
        Accounts(
            state_folder,
            source,
            index=state.name,
            index_identity=indices.identity(state),
            recipe=job.recipe,
            from_start=True,
        ) as accounts,
        without_refresh(client, state.name, is_empty=indices.count(client, state.name) == 0),
        ray_at(pools.address),
    ):
        indices.keep_profile(client, state, profile)
        run = RayRun(
            accounts,
            pools,
            max_errors=settings.max_errors,
            total=source.total(),
            on_progress=on_progress,
            stopped=stopped,
        )
        run.send(job)
        run.finish()
        client.indices.refresh(index=state.name)
        return run.report(state.name, source.identity, profile)
