"""The models that enrich documents, and the profile of an index that is made with them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import msgspec

from bridge.model_servers.client import ModelServer
from bridge.models.artifact import ModelFolder, resolve
from bridge.models.cross_encoder import CrossEncoder
from bridge.models.encoder import Encoder
from bridge.models.query_generator import QueryGenerator
from bridge.models.session import check_providers
from bridge.models.tokenization import load_tokenizer
from bridge.profile import DEFAULT_OBJECT, IndexProfile, ModelReference, PassageSettings, SearchRules
from bridge.settings import IngestSettings
from bridge.text.passages import TokenSpans
from bridge.text.writing_systems import scripts_of_words
from ingest.stages import expansion
from ingest.stages.embedding import PassageEncoder
from ingest.stages.served_models import ServedEncoder, ServedGenerator, ServedScorer, check_sidecar, server_of


@dataclass(frozen=True, slots=True)
class Models:
    """Opened models, with the names that profiles and stamps know them by. `token_spans` is the encoder's
    view of a text; `scorer` filters predicted queries; `scripts` are those that the encoder reads."""

    encoder: PassageEncoder
    encoder_reference: ModelReference
    token_spans: TokenSpans
    generator: expansion.QueryGenerator | None = None
    generator_reference: ModelReference | None = None
    scorer: expansion.Scorer | None = None
    scripts: Sequence[str] = ()


def load_models(settings: IngestSettings) -> Models:
    """Opens the models that the settings name, or the way to a server that runs them in this process's place.

    Raises:
        ModelError: one cannot be found or opened.
        SettingsError: `ingest.providers` names one that is not here, or does not start.
        SidecarError: the server does not answer, or runs other models.
    """
    check_providers(settings.providers, setting="ingest.providers")
    folder = resolve(settings.encoder)
    server = server_of(settings) if settings.server_url else None
    sidecar = server if settings.server_api == "sidecar" else None
    if sidecar is not None:
        check_sidecar(sidecar, settings)
    encoder: PassageEncoder
    if server is None:
        here = Encoder.load(folder, threads=settings.threads, providers=settings.providers)
        encoder, tokenizer = here, here.tokenizer
    else:
        encoder, tokenizer = ServedEncoder(server, folder, settings), load_tokenizer(folder)
    models = Models(encoder, _reference(folder), tokenizer.token_offsets, scripts=scripts_of_words(tokenizer.words))
    return _with_queries(models, settings, sidecar) if settings.generator else models


def _with_queries(models: Models, settings: IngestSettings, sidecar: ModelServer | None) -> Models:
    """The models, and those that predict and filter queries: of this process, or of a sidecar."""
    folder = resolve(settings.generator or "")
    generator: expansion.QueryGenerator
    scorer: expansion.Scorer | None = None
    if sidecar is None:
        generator = QueryGenerator.load(folder, threads=settings.threads)
        if settings.filter_model:
            reader = resolve(settings.filter_model)
            scorer = CrossEncoder.load(reader, threads=settings.threads, providers=settings.providers)
    else:
        generator = ServedGenerator(sidecar, folder)
        if settings.filter_model:
            scorer = ServedScorer(sidecar, resolve(settings.filter_model))
    return replace(models, generator=generator, generator_reference=_reference(folder), scorer=scorer)


def profile_for(
    models: Models,
    text_fields: Sequence[str],
    *,
    passages: PassageSettings | None = None,
    object_field: str = DEFAULT_OBJECT,
    kept: IndexProfile | None = None,
) -> IndexProfile:
    """The profile of an index whose documents these models enrich; `kept` is the one that it has already."""
    return IndexProfile(
        text_fields=list(text_fields),
        encoder=models.encoder_reference,
        dimension=models.encoder.dimension,
        generator=models.generator_reference,
        passages=passages or PassageSettings(),
        object_field=kept.object_field if kept else object_field,
        generation=kept.generation if kept else 1,
        rules=SearchRules(scripts=list(models.scripts)),
    )


def profile_like(kept: IndexProfile, models: Models) -> IndexProfile:
    """The profile of an index that exists, as these models would make it; predicted queries only where it has
    them already."""
    return msgspec.structs.replace(
        kept,
        encoder=models.encoder_reference,
        dimension=models.encoder.dimension,
        generator=models.generator_reference if kept.generator else None,
    )


def planned_profile(
    settings: IngestSettings, text_fields: Sequence[str], *, passages: PassageSettings | None = None
) -> IndexProfile:
    """The same, without opening the models that the settings name.

    Raises:
        ModelError: one cannot be found.
    """
    encoder = resolve(settings.encoder)
    return IndexProfile(
        text_fields=list(text_fields),
        encoder=_reference(encoder),
        dimension=encoder.manifest.dimension or 0,
        generator=_reference(resolve(settings.generator)) if settings.generator else None,
        object_field=settings.object_field,
        passages=passages or PassageSettings(),
        rules=SearchRules(scripts=scripts_of_words(load_tokenizer(encoder).words)),
    )


def _reference(folder: ModelFolder) -> ModelReference:
    return ModelReference(folder.manifest.name, folder.digest)
