"""The models that serve an index now. An adapted model learns from them and is compared with them."""

from dataclasses import dataclass

from bridge.models.artifact import ModelFolder, resolve, resolve_identity
from bridge.models.cross_encoder import CrossEncoder
from bridge.models.encoder import Encoder
from bridge.models.query_generator import QueryGenerator
from bridge.models.session import compute_threads
from bridge.profile import IndexProfile
from bridge.settings import IngestSettings
from ingest.stages.expansion import QueryFilter

DEFAULT_GENERATOR = "doc2query-small"


@dataclass(frozen=True, slots=True)
class ServingModels:
    """Opened models. `keep`: the filter of predicted queries by the cross-encoder."""

    encoder: Encoder
    cross_encoder: CrossEncoder
    cross_encoder_folder: ModelFolder
    generator: QueryGenerator
    keep: QueryFilter


def serving_models(profile: IndexProfile, settings: IngestSettings) -> ServingModels:
    """Opens the models; the default generator if the index has no predicted queries.

    Raises:
        ModelError: a model is missing, fails to open, or is not the one that enriched the index.
    """
    threads = settings.threads
    reader = resolve(profile.rerank.model)
    cross_encoder = CrossEncoder.load(reader, threads=threads)
    generator = resolve(DEFAULT_GENERATOR)
    if profile.generator:
        generator = resolve_identity(
            profile.generator.identity, settings.generator or DEFAULT_GENERATOR, setting="ingest.generator"
        )
    encoder = resolve_identity(profile.encoder.identity, settings.encoder, setting="ingest.encoder")
    return ServingModels(
        encoder=Encoder.load(encoder, threads=threads),
        cross_encoder=cross_encoder,
        cross_encoder_folder=reader,
        generator=QueryGenerator.load(generator, threads=threads),
        keep=QueryFilter(cross_encoder, threshold=settings.filter_threshold, threads=compute_threads(threads)),
    )
