"""What a document was made from, in one keyword: how a second run knows that there is nothing to do."""

import hashlib

import msgspec

from bridge.profile import IndexProfile
from bridge.records import Document
from bridge.settings import IngestSettings
from ingest.stages.filter_threshold import filter_threshold

_DIGITS = 16
"""Hex digits per part, 64 bits: among a billion documents, one wrong "unchanged" in 18 billion runs."""


def recipe(profile: IndexProfile, settings: IngestSettings) -> str:
    """Names how our fields are made: models by digest, passage sizes, amount of predicted text.

    When it changes, every document is stale.

    Raises:
        IndexUnsuitable: as `ingest.filter_threshold` says.
    """
    made_by: dict[str, object] = {
        "encoder": profile.encoder.identity,
        "generator": profile.generator.identity if profile.generator else None,
        "text_fields": profile.text_fields,
        "passages": msgspec.structs.asdict(profile.passages),
    }
    if profile.vector_type == "none":
        made_by["vectors"] = False
    if profile.generator:
        made_by["queries"] = [settings.queries_per_passage, settings.max_query_tokens, settings.max_expansion_bytes]
        if settings.new_terms_only:
            made_by["new_terms_only"] = True
        made_by["filter"] = None
        if settings.filter_model:
            made_by["filter"] = [settings.filter_model, filter_threshold(profile, settings)]
    return _digest(msgspec.json.encode(made_by))


def text_stamp(recipe: str, document: Document) -> str:
    """`RECIPE.TEXTS`, two hashes: what our fields are made from, whatever the rest of the document holds."""
    texts = msgspec.json.encode(list(document.texts.values()))
    return f"{recipe}.{_digest(texts)}"


def stamp(recipe: str, document: Document) -> str:
    """`RECIPE.TEXTS.BODY`: tells in addition whether a source holds anything new of the document."""
    return f"{text_stamp(recipe, document)}.{_digest(document.body)}"


def is_current(kept: str | None, recipe: str, document: Document) -> bool:
    """Whether fields that carry the stamp `kept` are what would be made of the document now."""
    made_from = text_stamp(recipe, document)
    return kept is not None and (kept == made_from or kept.startswith(made_from + "."))


def recipe_of(stamp: str) -> str:
    """The recipe that a stamp names."""
    return stamp.partition(".")[0]


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:_DIGITS]
