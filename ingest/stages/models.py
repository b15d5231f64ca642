"""The models that enrich documents, and the profile of an index that is made with them."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import msgspec

from bridge.model_servers.client import ModelServer
from bridge.models import query_generator
from bridge.models.artifact import ModelFolder, resolve
from bridge.models.cross_encoder import CrossEncoder
from bridge.models.encoder import Encoder as LocalEncoder
from bridge.models.protocols import Encoder, QueryGenerator, Scorer, SparseEncoder
from bridge.models.session import check_providers
from bridge.models.sparse_encoder import SparseEncoder as LocalSparseEncoder
from bridge.models.tokenization import load_tokenizer
from bridge.profile import (
    DEFAULT_OBJECT,
    STATIC_FUSION,
    FusionSettings,
    ImageSettings,
    IndexProfile,
    ModelReference,
    PassageSettings,
    SearchRules,
    SparseSettings,
)
from bridge.settings import IngestSettings
from bridge.text import TokenSpans, scripts_of_words
from ingest.stages.images import Images
from ingest.stages.served_models import (
    ServedEncoder,
    ServedGenerator,
    ServedScorer,
    ServedSparseEncoder,
    check_sidecar,
    server_of,
)


@dataclass(frozen=True, slots=True)
class Models:
    """Opened models, with their names in profiles and stamps. `token_spans` gives the encoder's tokens of a text;
    `scorer` filters predicted queries; `scripts` and `languages` are those that the encoder reads; `fusion` is how new
    indices fuse its vectors with words; `sparse` says how `sparse_encoder` gives documents terms; `images` embeds the
    pictures that `image_field` names, or the field of an index that has some already."""

    encoder: Encoder
    encoder_reference: ModelReference
    token_spans: TokenSpans
    generator: QueryGenerator | None = None
    generator_reference: ModelReference | None = None
    scorer: Scorer | None = None
    scripts: Sequence[str] = ()
    languages: Sequence[str] = ()
    sparse_encoder: SparseEncoder | None = None
    sparse: SparseSettings | None = None
    fusion: FusionSettings = field(default_factory=FusionSettings)
    images: Images | None = None
    image_field: str | None = None


def load_models(settings: IngestSettings) -> Models:
    """Opens the models that the settings name, here or on the server that `ingest.server.url` names.

    Raises:
        ModelError: one cannot be found or opened.
        SettingsError: `ingest.providers` names one that is not installed, or does not start.
        SidecarError: the server does not answer, or runs other models.
    """
    check_providers(settings.providers, setting="ingest.providers")
    folder = resolve(settings.encoder)
    server = server_of(settings) if settings.server.url else None
    sidecar = server if settings.server.api == "sidecar" else None
    if sidecar is not None:
        check_sidecar(sidecar, settings)
    encoder: Encoder
    if server is None:
        here = LocalEncoder.load(folder, threads=settings.threads, providers=settings.providers)
        encoder, tokenizer = here, here.tokenizer
    else:
        encoder, tokenizer = ServedEncoder(server, folder, settings), load_tokenizer(folder)
    scripts = scripts_of_words(tokenizer.words)
    models = Models(
        encoder,
        _reference(folder),
        tokenizer.token_offsets,
        scripts=scripts,
        languages=folder.manifest.languages,
        fusion=_fusion(folder),
    )
    models = _with_terms(models, settings, sidecar) if settings.sparse_encoder else models
    if settings.image_encoder or settings.image_field:  # here, wherever the other models are: so are the pictures
        models = replace(models, images=Images.load(settings), image_field=settings.image_field)
    return _with_queries(models, settings, sidecar) if settings.generator else models


def _with_terms(models: Models, settings: IngestSettings, sidecar: ModelServer | None) -> Models:
    """Adds the sparse encoder, here or on the sidecar."""
    folder = resolve(settings.sparse_encoder or "")
    encoder: SparseEncoder
    if sidecar is None:
        encoder = LocalSparseEncoder.load(folder, threads=settings.threads, providers=settings.providers)
    else:
        encoder = ServedSparseEncoder(sidecar, folder)
    return replace(models, sparse_encoder=encoder, sparse=_sparse(settings, folder))


def _sparse(settings: IngestSettings, folder: ModelFolder) -> SparseSettings:
    return SparseSettings(_reference(folder), top_terms=settings.top_terms, queries=settings.sparse_queries)


def _with_queries(models: Models, settings: IngestSettings, sidecar: ModelServer | None) -> Models:
    """Adds the models that predict and filter queries, here or on the sidecar."""
    folder = resolve(settings.generator or "")
    generator: QueryGenerator
    scorer: Scorer | None = None
    if sidecar is None:
        generator = query_generator.QueryGenerator.load(folder, threads=settings.threads)
        if settings.filter_model:
            reader = resolve(settings.filter_model)
            scorer = CrossEncoder.load(reader, threads=settings.threads, providers=settings.providers)
    else:
        generator = ServedGenerator(sidecar, folder)
        if settings.filter_model:
            scorer = ServedScorer(sidecar, resolve(settings.filter_model))
    return replace(models, generator=generator, generator_reference=_reference(folder), scorer=scorer)


def _image(models: Models, kept: IndexProfile | None) -> ImageSettings | None:
    """How documents get vectors of their pictures, in the field that was named now or with the profile `kept`."""
    name = models.image_field or (kept.image_field if kept else None)
    if models.images is None or name is None:
        return None
    return ImageSettings(name, models.images.reference, models.images.dimension)


def profile_for(
    models: Models,
    text_fields: Sequence[str],
    *,
    passages: PassageSettings | None = None,
    object_field: str = DEFAULT_OBJECT,
    kept: IndexProfile | None = None,
) -> IndexProfile:
    """The profile of an index whose documents these models enrich; `kept` is its profile so far, if it has one."""
    return IndexProfile(
        text_fields=list(text_fields),
        encoder=models.encoder_reference,
        dimension=models.encoder.dimension,
        generator=models.generator_reference,
        passages=passages or PassageSettings(),
        fusion=models.fusion,
        object_field=kept.object_field if kept else object_field,
        generation=kept.generation if kept else 1,
        sparse=models.sparse,
        image=_image(models, kept),
        rules=SearchRules(scripts=list(models.scripts)),
    )


def profile_like(kept: IndexProfile, models: Models) -> IndexProfile:
    """The profile of an enriched index, made by these models; with predicted queries, terms and vectors of pictures
    only if it already has some."""
    return msgspec.structs.replace(
        kept,
        encoder=models.encoder_reference,
        dimension=models.encoder.dimension,
        generator=models.generator_reference if kept.generator else None,
        sparse=models.sparse if kept.sparse else None,
        image=_image(replace(models, image_field=kept.image.field), kept) if kept.image else None,
    )


def planned_profile(
    settings: IngestSettings, text_fields: Sequence[str], *, passages: PassageSettings | None = None
) -> IndexProfile:
    """The profile of a new index, from the models' manifests: no model is opened.

    Raises:
        ModelError: one cannot be found.
    """
    encoder = resolve(settings.encoder)
    image = None
    if settings.image_field:
        reader = resolve(settings.image_encoder or "")
        image = ImageSettings(settings.image_field, _reference(reader), reader.manifest.dimension or 0)
    return IndexProfile(
        text_fields=list(text_fields),
        encoder=_reference(encoder),
        dimension=encoder.manifest.dimension or 0,
        generator=_reference(resolve(settings.generator)) if settings.generator else None,
        sparse=_sparse(settings, resolve(settings.sparse_encoder)) if settings.sparse_encoder else None,
        image=image,
        object_field=settings.object_field,
        passages=passages or PassageSettings(),
        fusion=_fusion(encoder),
        rules=SearchRules(scripts=scripts_of_words(load_tokenizer(encoder).words)),
    )


def _reference(folder: ModelFolder) -> ModelReference:
    return ModelReference(folder.manifest.name, folder.digest)


def _fusion(encoder: ModelFolder) -> FusionSettings:
    return STATIC_FUSION if encoder.manifest.kind == "static_encoder" else FusionSettings()
