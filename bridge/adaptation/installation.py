"""An adapted encoder in the index: a generation of its vectors beside the one that serves searches."""

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
    """Fills a generation, or goes on with it; gives its number. Searches go on as they were: `neural-bridge generation
    cutover` lets them use it. The generator stays that of `profile`, as far as the settings can name it.

    Raises:
        IndexUnsuitable: another generation stands beside the serving one already.
        BridgeError: what `run_backfill` says.
    """
    generator = settings.generator if profile.generator else None
    # No server runs the new model yet: it works here.
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
