"""What a document was made from, in one keyword: how a second run knows that there is nothing to do."""

import hashlib

import msgspec

from bridge.profile import IndexProfile
from bridge.records import Document
from bridge.settings import IngestSettings

_DIGITS = 16
"""Hex digits per part, 64 bits: among a billion documents, one wrong "unchanged" in 18 billion runs."""


def recipe(profile: IndexProfile, settings: IngestSettings) -> str:
    """Names how our fields are made: models by digest, passage sizes, amount of predicted text.

    When it changes, every document is stale.
    """
    made_by: dict[str, object] = {
        "encoder": profile.encoder.identity,
        "generator": profile.generator.identity if profile.generator else None,
        "text_fields": [field.name for field in profile.text_fields],
        "passages": msgspec.structs.asdict(profile.passages),
    }
    if profile.generator:
        made_by["queries"] = [settings.queries_per_passage, settings.max_query_tokens, settings.max_expansion_bytes]
        made_by["filter"] = [settings.filter_model, settings.filter_threshold] if settings.filter_model else None
    return _digest(msgspec.json.encode(made_by))


def stamp(recipe: str, document: Document) -> str:
    """`RECIPE.TEXTS.BODY`, three hashes.

    The first two tell whether our fields are current, whoever changed the rest of the document; all three
    whether a source holds anything new.
    """
    texts = msgspec.json.encode(list(document.texts.values()))
    return f"{recipe}.{_digest(texts)}.{_digest(document.body)}"


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:_DIGITS]
