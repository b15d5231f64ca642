"""The models that serve an index now: what an adapted one learns from and is compared with."""

from dataclasses import dataclass

from bridge.errors import ModelError
from bridge.models.artifact import ModelFolder, resolve
from bridge.models.cross_encoder import CrossEncoder
from bridge.models.encoder import Encoder
from bridge.models.query_generator import QueryGenerator
from bridge.models.session import compute_threads
from bridge.profile import IndexProfile
from bridge.settings import IngestSettings
from ingest.expansion import QueryFilter

DEFAULT_GENERATOR = "doc2query-small"


@dataclass(frozen=True, slots=True)
class ServingModels:
    """Opened. `keep`: which predicted queries the cross-encoder believes."""

    encoder: Encoder
    cross_encoder: CrossEncoder
    cross_encoder_folder: ModelFolder
    generator: QueryGenerator
    keep: QueryFilter


def serving_models(profile: IndexProfile, settings: IngestSettings) -> ServingModels:
    """Opens them; where the index has no predicted queries, the generator is the default one.

    Raises:
        ModelError: one cannot be found or opened, or the encoder is not the one that made the index's vectors.
    """
    threads = settings.threads
    reader = resolve(profile.rerank.model)
    cross_encoder = CrossEncoder.load(reader, threads=threads)
    generator = resolve(profile.generator.name if profile.generator else DEFAULT_GENERATOR)
    return ServingModels(
        encoder=Encoder.load(_encoder_of(profile, settings), threads=threads),
        cross_encoder=cross_encoder,
        cross_encoder_folder=reader,
        generator=QueryGenerator.load(generator, threads=threads),
        keep=QueryFilter(cross_encoder, threshold=settings.filter_threshold, threads=compute_threads(threads)),
    )


def _encoder_of(profile: IndexProfile, settings: IngestSettings) -> ModelFolder:
    """The profile knows a model by name and digest; one in a folder of its own is found by the settings."""
    for name in (profile.encoder.name, settings.encoder):
        try:
            folder = resolve(name)
        except ModelError:
            continue
        if folder.identity == profile.encoder.identity:
            return folder
    raise ModelError(
        f"the index's vectors are of {profile.encoder.identity}, which is neither built in nor the one of "
        f"ingest.encoder ({settings.encoder}): set that to its folder"
    )
