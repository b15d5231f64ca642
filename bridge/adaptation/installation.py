"""Installs an adapted encoder: fills a new generation of vectors beside the serving one."""

from collections.abc import Callable
from pathlib import Path
from threading import Event

from opensearchpy import OpenSearch

from bridge.cluster.generations import next_generation
from bridge.cluster.index import IndexState
from bridge.profile import IndexProfile
from bridge.settings import IngestServerSettings, IngestSettings
from ingest.books.ledger import Progress
from ingest.job import Job
from ingest.runs.backfill import BackfillReport, run_backfill
from ingest.stages.models import load_models, profile_for


def install_encoder(
    client: OpenSearch,
    state: IndexState,
    profile: IndexProfile,
    model: Path,
    settings: IngestSettings,
    *,
    state_folder: Path,
    on_progress: Callable[[Progress], None],
    stopped: Event,
) -> tuple[int, BackfillReport]:
    """Fills a generation, or continues filling it, and returns its number with the report. Searches use it only after
    `neural-bridge generation cutover`. The generator stays that of `profile` if the settings name it.

    Raises:
        IndexUnsuitable: another generation is already being filled.
        BridgeError: as raised by `run_backfill`.
    """
    generator = settings.generator if profile.generator else None
    # No server runs the new model yet, so this process runs it.
    made_with = settings.model_copy(
        update={"encoder": str(model), "generator": generator, "server": IngestServerSettings()}
    )
    models = load_models(made_with)
    names = profile.text_fields
    wanted = next_generation(state, profile_for(models, names, passages=profile.passages))
    done = run_backfill(
        Job(
            state.name,
            profile=wanted,
            models=models,
            client=client,
            settings=made_with,
            state_folder=state_folder,
            on_progress=on_progress,
            stopped=stopped,
        ),
    )
    return wanted.generation, done
