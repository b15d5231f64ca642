"""Where OpenSearch and Elasticsearch differ in what the bridge asks of them, and nowhere else."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from bridge.cluster.connection import Capabilities

VectorEngine = Literal["lucene", "faiss"]
"""Which library builds OpenSearch's vector graphs. Lucene's is part of every distribution; faiss takes less
memory for many vectors and needs native libraries on the nodes."""

_HNSW = {"m": 16, "ef_construction": 128}


class Dialect(Protocol):
    """One engine's way to say things."""

    def vector_field(self, dimension: int, engine: VectorEngine) -> dict[str, Any]:
        """Mapping of a field that holds unit vectors and is searched by inner product."""

    def vector_settings(self) -> dict[str, Any]:
        """Index settings without which vectors are not searchable; they cannot be set later."""

    def pit_path(self, index: str) -> str:
        """Path that opens a point in time (POST) on an index; `index` is quoted for a URL."""

    def pit_id(self, answer: Mapping[str, Any]) -> str:
        """The id of the point in time that was opened. Raises `KeyError` where there is none."""

    def pit_closing(self, pit: str) -> tuple[str, dict[str, Any]]:
        """Path and body that close it (DELETE)."""


@dataclass(frozen=True, slots=True)
class OpenSearchDialect:
    """OpenSearch with its k-NN plugin."""

    version: tuple[int, int, int]

    def vector_field(self, dimension: int, engine: VectorEngine) -> dict[str, Any]:
        """See `Dialect`. For unit vectors the inner product ranks as the cosine does, and costs less."""
        return {
            "type": "knn_vector",
            "dimension": dimension,
            "method": {"name": "hnsw", "engine": engine, "space_type": "innerproduct", "parameters": dict(_HNSW)},
        }

    def vector_settings(self) -> dict[str, Any]:
        """See `Dialect`.

        Since 3.0 vectors are left out of the stored `_source` and put back when it is read, which writes
        the whole document anew: 1.10 comes back as 1.1. Applications get their documents as they are.
        """
        if self.version < (3, 0, 0):
            return {"index.knn": True}
        return {"index.knn": True, "index.knn.derived_source.enabled": False}

    def pit_path(self, index: str) -> str:
        """See `Dialect`."""
        return f"/{index}/_search/point_in_time"

    def pit_id(self, answer: Mapping[str, Any]) -> str:
        """See `Dialect`."""
        return str(answer["pit_id"])

    def pit_closing(self, pit: str) -> tuple[str, dict[str, Any]]:
        """See `Dialect`."""
        return "/_search/point_in_time", {"pit_id": [pit]}


class ElasticsearchDialect:
    """Elasticsearch 8 and later, whose vectors are built in."""

    def vector_field(self, dimension: int, engine: VectorEngine) -> dict[str, Any]:
        """See `Dialect`; there is one engine."""
        options = {"type": "hnsw", **_HNSW}
        return {
            "type": "dense_vector",
            "dims": dimension,
            "index": True,
            "similarity": "dot_product",
            "index_options": options,
        }

    def vector_settings(self) -> dict[str, Any]:
        """See `Dialect`."""
        return {}

    def pit_path(self, index: str) -> str:
        """See `Dialect`."""
        return f"/{index}/_pit"

    def pit_id(self, answer: Mapping[str, Any]) -> str:
        """See `Dialect`."""
        return str(answer["id"])

    def pit_closing(self, pit: str) -> tuple[str, dict[str, Any]]:
        """See `Dialect`."""
        return "/_pit", {"id": pit}


def dialect_of(found: Capabilities) -> Dialect:
    """The dialect of a cluster."""
    return ElasticsearchDialect() if found.distribution == "elasticsearch" else OpenSearchDialect(found.version)
