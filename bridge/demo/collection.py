"""The demo's index: how an application would map the documentation, and the bridge's profile beside it."""

from typing import Any

from bridge.demo.documents import ENRICHED_FIELDS
from bridge.models.artifact import resolve
from bridge.profile import IndexProfile, ModelReference, TextField
from bridge.settings import Settings

INDEX = "python-documentation"

SEARCHED_FIELDS = ["name", "signature", "text"]
"""What the application's own query looks at."""

_NAMES = {"type": "text", "analyzer": "identifiers"}

PROPERTIES: dict[str, Any] = {
    "name": _NAMES,
    "signature": _NAMES,
    "text": {"type": "text", "analyzer": "english"},
    "kind": {"type": "keyword"},
    "module": {"type": "keyword"},
}

INDEX_SETTINGS: dict[str, Any] = {
    "number_of_shards": 1,
    "number_of_replicas": 0,
    "analysis": {
        "filter": {"parts_of_names": {"type": "word_delimiter_graph"}},
        # `TestCase.assertEqual` is found by its words: BM25 is given what a careful application gives it.
        "analyzer": {
            "identifiers": {
                "type": "custom",
                "tokenizer": "whitespace",
                "filter": ["parts_of_names", "lowercase", "porter_stem"],
            }
        },
    },
}


def profile(settings: Settings) -> IndexProfile:
    """The profile of an index that is filled with the models of `settings`.

    Raises:
        ModelError: a model is not there or cannot be used.
    """
    encoder = resolve(settings.ingest.encoder)
    generator = resolve(settings.ingest.generator) if settings.ingest.generator else None
    return IndexProfile(
        text_fields=[TextField(name) for name in ENRICHED_FIELDS],
        encoder=ModelReference(encoder.manifest.name, encoder.digest),
        dimension=encoder.manifest.dimension or 0,
        generator=ModelReference(generator.manifest.name, generator.digest) if generator else None,
    )


def application_query(text: str, size: int = 10) -> dict[str, Any]:
    """The search body that an application sends for what a user typed."""
    return {"size": size, "query": {"multi_match": {"query": text, "fields": SEARCHED_FIELDS}}}
