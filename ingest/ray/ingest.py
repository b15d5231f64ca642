"""Ingest on several machines; what `ingest.pipeline` does in one process.

Versions of one document in different splits may be written in any order: ids must be unique in the source.
"""

from collections.abc import Callable
from pathlib import Path
from threading import Event
from typing import Any

from opensearchpy import OpenSearch

from bridge.cluster import index as indices
from bridge.cluster.bulk_load import tuned_for_load
from bridge.profile import IndexProfile
from bridge.settings import IngestSettings
from ingest.books.report import Progress, Report
from ingest.ray.reach import Reach
from ingest.ray.run import Pools, opened_ray_run
from ingest.ray.stages import Job
from ingest.sources.source import Source
from ingest.stages.models import Models


def run_ray_ingest(
    source: Source[Any],
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
    profile = indices.fitted(client, profile)
    state = indices.check(client, index, profile)
    indices.refuse_data_stream(state)
    job = Job(
        source=source,
        index=state.name,
        profile=profile,
        settings=settings,
        reach=reach,
        open_models=open_models or pools.opener(settings),
    )
    with (
        opened_ray_run(
            job,
            source,
            state,
            pools=pools,
            state_folder=state_folder,
            on_progress=on_progress,
            stopped=stopped or Event(),
        ) as run,
        tuned_for_load(
            client,
            state.name,
            is_empty=indices.count(client, state.name) == 0,
            replicas=settings.load_replicas,
        ),
    ):
        indices.keep_profile(client, state, profile)
        run.send(job)
        run.finish()
        client.indices.refresh(index=state.name)
        return run.report(state.name, source.identity, profile)
