"""The models that serve an index now: what an adapted one learns from and is compared with."""

from dataclasses import dataclass

from bridge.errors import ModelError
from bridge.models.artifact import ModelFolder, resolve
from bridge.models.cross_encoder import CrossEncoder
from bridge.models.encoder import Encoder
from bridge.models.query_generator import QueryGenerator
from bridge.models.session import compute_threads
from bridge.profile import IndexProfile, ModelReference
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
        ModelError: one cannot be found or opened, or is not the one that enriched the index.
    """
    threads = settings.threads
    reader = resolve(profile.rerank.model)
    cross_encoder = CrossEncoder.load(reader, threads=threads)
    generator = resolve(DEFAULT_GENERATOR)
    if profile.generator:
        generator = _folder_of(profile.generator, settings.generator or DEFAULT_GENERATOR, "ingest.generator")
    return ServingModels(
        encoder=Encoder.load(_folder_of(profile.encoder, settings.encoder, "ingest.encoder"), threads=threads),
        cross_encoder=cross_encoder,
        cross_encoder_folder=reader,
        generator=QueryGenerator.load(generator, threads=threads),
        keep=QueryFilter(cross_encoder, threshold=settings.filter_threshold, threads=compute_threads(threads)),
    )


def _folder_of(made_by: ModelReference, configured: str, setting: str) -> ModelFolder:
    """The profile knows a model by name and digest; one in a folder of its own is found by the setting."""
    for name in (made_by.name, configured):
        try:
            folder = resolve(name)
        except ModelError:
            continue
        if folder.identity == made_by.identity:
            return folder
    raise ModelError(
        f"the index was enriched by {made_by.identity}, which is neither built in nor the model of {setting} "
        f"({configured}): set that to its folder"
    )
