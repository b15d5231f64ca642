"""The demo's index and search: how an application would map the documentation, and how it would search it."""

from collections.abc import Sequence
from typing import Any

from opensearchpy import OpenSearch

from bridge.cluster import index as indices
from bridge.cluster.schema import field_mapping
from bridge.profile import IndexProfile
from ingest.stages.models import Models, profile_like

INDEX = "python-documentation"

SEARCHED_FIELDS = ["name", "signature", "text"]
"""Fields of the application's own query."""

_NAMES = {"type": "text", "analyzer": "identifiers"}

PROPERTIES: dict[str, Any] = {
    "name": _NAMES,
    "signature": _NAMES,
    "text": {"type": "text", "analyzer": "english"},
    "kind": {"type": "keyword"},
    "module": {"type": "keyword"},
}

# `TestCase.assertEqual` is found by its words: BM25 gets the analysis that a careful application gives it.
_ANALYSIS: dict[str, Any] = {
    "filter": {"parts_of_names": {"type": "word_delimiter_graph"}},
    "analyzer": {
        "identifiers": {
            "type": "custom",
            "tokenizer": "whitespace",
            "filter": ["parts_of_names", "lowercase", "stop", "porter_stem"],
        }
    },
}

INDEX_SETTINGS: dict[str, Any] = {"number_of_shards": 1, "number_of_replicas": 0, "analysis": _ANALYSIS}


def make_index(
    cluster: OpenSearch, index: str, profile: IndexProfile, models: Models, *, doc_ids: Sequence[str]
) -> None:
    """Creates the demo's index, or resets the search settings of one that holds none but these documents.

    An index with other models, mappings or encoding of vectors, or with documents of another Python, is deleted
    first: it is the demo's own.
    """
    if cluster.indices.exists(index=index):
        state = indices.look(cluster, index)
        mapped = {name: state.mapping.get("properties", {}).get(name) for name in PROPERTIES}
        wanted = indices.new_profile(cluster, profile, properties=PROPERTIES)
        same = (mapped, state.settings.get("analysis")) == (PROPERTIES, _ANALYSIS)
        same = same and state.profile is not None and profile_like(state.profile, models) == state.profile
        same = same and state.profile is not None and state.profile.codes == wanted.codes
        vectors = field_mapping(state.mapping, wanted.embedding_field) or {}
        same = same and vectors.get("data_type", "float").lower() == wanted.vector_encoding  # they do not mix
        if same and indices.count(cluster, index) == len(indices.present_ids(cluster, index, doc_ids)):
            indices.put_profile(cluster, index, lambda _: wanted)  # an earlier demo gated and tuned it
            return
        indices.delete(cluster, index)
    indices.create(cluster, index, profile, properties=PROPERTIES, settings=INDEX_SETTINGS)


def application_query(text: str, size: int = 10) -> dict[str, Any]:
    """The search body that an application sends for the words that a user typed."""
    return {"size": size, "query": {"multi_match": {"query": text, "fields": SEARCHED_FIELDS}}}
