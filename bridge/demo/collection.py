"""The demo's index and search: how an application would map the documentation, and how it would ask."""

from typing import Any

from opensearchpy import OpenSearch

from bridge.cluster import index as indices
from bridge.profile import IndexProfile

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

# `TestCase.assertEqual` is found by its words: BM25 is given what a careful application gives it.
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


def make_index(cluster: OpenSearch, index: str, profile: IndexProfile, *, n_documents: int) -> None:
    """Makes the demo's index, unless there is one that `n_documents` can be written to or already are.

    An index of other models or mappings, or with documents of another Python, is the demo's own: it is made
    anew.
    """
    if cluster.indices.exists(index=index):
        state = indices.look(cluster, index)
        mapped = {name: state.mapping.get("properties", {}).get(name) for name in PROPERTIES}
        wanted = indices.new_profile(cluster, profile, properties=PROPERTIES)
        same = (state.profile, mapped, state.settings.get("analysis")) == (wanted, PROPERTIES, _ANALYSIS)
        if same and indices.count(cluster, index) <= n_documents:
            return
        indices.delete(cluster, index)
    indices.create(cluster, index, profile, properties=PROPERTIES, settings=INDEX_SETTINGS)


def application_query(text: str, size: int = 10) -> dict[str, Any]:
    """The search body that an application sends for what a user typed."""
    return {"size": size, "query": {"multi_match": {"query": text, "fields": SEARCHED_FIELDS}}}
