"""What a cluster can do, how OpenSearch and Elasticsearch say the same thing differently, and in which bytes and bits
both hold embeddings; nowhere else."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import blake2b, shake_256
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from bridge.errors import AnswerNotUnderstood
from bridge.profile import IndexProfile, TermsType, VectorEncoding, VectorType
from bridge.records import Terms

_KNN = "opensearch-knn"
_FIRST_KNN_QUERY = (8, 12, 0)
"""Elasticsearch's `knn` query, which can stand in a `nested` query, with filters inside."""

_FIRST_SPARSE_FIELD = (8, 15, 0)
"""Elasticsearch's field type `sparse_vector`, from when it says whether a document has it."""

_PRETENDED = (7, 10, 2)
"""The version that OpenSearch reports if `compatibility.override_main_response_version` is set."""

_OLDEST = {"opensearch": (1, 3, 0), "elasticsearch": (7, 10, 0)}

_TERM_BYTES = 48
"""Of the code of weighted terms: as many bits as the signs of an embedding with 384 dimensions."""

_MOST_PLANES = 1024
"""Beside the signs of the components: a longer embedding has enough of those."""

_PLANES = b"planes"
"""Of this text's hash the pseudo-random planes are made. Another text would make codes that no index has."""


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a cluster is, and what follows from it.

    `distribution`: opensearch or elasticsearch. `plugins`: OpenSearch's, None if this user may not list them.
    `serverless`: a service that hides nodes, shards and points in time.
    """

    distribution: str
    version: tuple[int, int, int]
    plugins: frozenset[str] | None = frozenset()
    serverless: bool = False

    def __str__(self) -> str:
        return f"{self.distribution} {'.'.join(map(str, self.version))}{' serverless' if self.serverless else ''}"

    @property
    def has_knn(self) -> bool:
        """Whether vectors can be searched. OpenSearch that hides its plugins is assumed to have the k-NN one."""
        if self.distribution == "elasticsearch":
            return self.serverless or self.version >= _FIRST_KNN_QUERY
        return self.plugins is None or _KNN in self.plugins

    @property
    def vector_engines(self) -> tuple[str, ...]:
        """The libraries that may build graphs of vectors, the preferred one first."""
        if not self.has_knn:
            return ()
        if self.distribution == "elasticsearch":
            return ("built in",)
        return ("lucene", "faiss") if self.version >= (2, 2, 0) else ("faiss",)

    @property
    def is_supported(self) -> bool:
        """Whether the version is one that the bridge is written for."""
        oldest = _OLDEST.get(self.distribution)
        return self.serverless or (oldest is not None and self.version >= oldest)


def read_capabilities(info: object, plugins: object) -> Capabilities:
    """Reads the answers to `GET /` and `GET /_cat/plugins?format=json`; `plugins` is None if that was refused.

    Raises:
        AnswerNotUnderstood: `info` is neither OpenSearch's nor Elasticsearch's.
    """
    version = info.get("version") if isinstance(info, Mapping) else None
    number = _number(version.get("number")) if isinstance(version, Mapping) else None
    if number is None or not isinstance(version, Mapping):
        raise AnswerNotUnderstood(
            "the address answers, but not as OpenSearch or Elasticsearch do: check cluster.url and any "
            "gateway on the way"
        )
    distribution = str(version.get("distribution", "elasticsearch"))
    entries = [entry for entry in plugins if isinstance(entry, Mapping)] if isinstance(plugins, list) else []
    if distribution == "opensearch" and number == _PRETENDED:
        # Plugins carry the version of the OpenSearch that they are for.
        number = next(filter(None, (_number(entry.get("version")) for entry in entries)), _OLDEST[distribution])
    return Capabilities(
        distribution=distribution,
        version=number,
        plugins=None if plugins is None else frozenset(str(entry.get("component")) for entry in entries),
        serverless=version.get("build_flavor") == "serverless",
    )


def _number(version: object) -> tuple[int, int, int] | None:
    found = re.match(r"(\d+)\.(\d+)\.(\d+)", str(version))
    return (int(found[1]), int(found[2]), int(found[3])) if found else None


VectorEngine = Literal["lucene", "faiss"]
"""Which library builds OpenSearch's vector graphs. Lucene's is part of every distribution; faiss takes less
memory for many vectors and needs native libraries on the nodes."""

MAX_QUERY_TERMS = 64
"""So many clauses cost little; a longer query's smallest terms say little."""

_HNSW = {"m": 16, "ef_construction": 128}


class Dialect(Protocol):
    """What OpenSearch and Elasticsearch write differently."""

    @property
    def vector_type(self) -> VectorType:
        """How the cluster's indices hold embeddings."""

    @property
    def terms_type(self) -> TermsType:
        """How a new index of the cluster holds weighted terms."""

    @property
    def combines_fields(self) -> bool:
        """Whether it knows the query `combined_fields`."""

    @property
    def reads_primaries(self) -> bool:
        """Whether a search can name the primaries as the copies to read."""

    def vector_encoding(self, engine: VectorEngine) -> VectorEncoding:
        """The smallest encoding of vectors that a new index can hold."""

    def vector_field(self, dimension: int, engine: VectorEngine, encoding: VectorEncoding) -> dict[str, Any]:
        """Mapping of a field that holds embeddings: unit vectors as float, or their bytes."""

    def vector_settings(self) -> dict[str, Any]:
        """Settings that an index for vectors is created with; most cannot be set later."""

    def pit_path(self, index: str) -> str:
        """Path that opens a point in time (POST) on an index; `index` is quoted for a URL."""

    def pit_id(self, answer: Mapping[str, Any]) -> str:
        """The id of the point in time that was opened. Raises `KeyError` if the answer has none."""

    def pit_closing(self, pit: str) -> tuple[str, dict[str, Any]]:
        """Path and body that close it (DELETE)."""


@dataclass(frozen=True, slots=True)
class OpenSearchDialect:
    """OpenSearch; `vector_type` none without its k-NN plugin."""

    version: tuple[int, int, int]
    vector_type: VectorType = "knn_vector"

    @property
    def terms_type(self) -> TermsType:
        """See `Dialect`."""
        return "rank_features"

    @property
    def combines_fields(self) -> bool:
        """See `Dialect`."""
        return self.version >= (3, 2, 0)

    @property
    def reads_primaries(self) -> bool:
        """See `Dialect`."""
        return True

    def vector_encoding(self, engine: VectorEngine) -> VectorEncoding:
        """See `Dialect`. faiss compares bytes by distance and inner product only, which depend on a vector's length."""
        return "byte" if engine == "lucene" and self.version >= (2, 9, 0) else "float"

    def vector_field(self, dimension: int, engine: VectorEngine, encoding: VectorEncoding) -> dict[str, Any]:
        """See `Dialect`. For unit vectors the inner product ranks as the cosine does, and costs less."""
        space = "innerproduct" if encoding == "float" else "cosinesimil"
        return {
            "type": "knn_vector",
            "dimension": dimension,
            **({"data_type": "byte"} if encoding == "byte" else {}),
            "method": {"name": "hnsw", "engine": engine, "space_type": space, "parameters": dict(_HNSW)},
        }

    def vector_settings(self) -> dict[str, Any]:
        """See `Dialect`.

        Since 3.0 vectors are left out of the stored `_source` and put back when it is read, which writes
        the whole document anew: 1.10 comes back as 1.1. Applications get their documents as they are.
        """
        if self.vector_type == "none":
            return {}
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


@dataclass(frozen=True, slots=True)
class ElasticsearchDialect:
    """Elasticsearch, whose vectors are built in; `vector_type` is none if it is too old to search them."""

    version: tuple[int, int, int]
    vector_type: VectorType = "dense_vector"

    @property
    def terms_type(self) -> TermsType:
        """See `Dialect`."""
        return "sparse_vector" if self.version >= _FIRST_SPARSE_FIELD else "rank_features"

    @property
    def combines_fields(self) -> bool:
        """See `Dialect`."""
        return self.version >= (7, 13, 0)

    @property
    def reads_primaries(self) -> bool:
        """See `Dialect`."""
        return False

    def vector_encoding(self, engine: VectorEngine) -> VectorEncoding:
        """See `Dialect`."""
        return "byte" if self.version >= (8, 6, 0) else "float"

    def vector_field(self, dimension: int, engine: VectorEngine, encoding: VectorEncoding) -> dict[str, Any]:
        """See `Dialect`; there is one engine."""
        options = {"type": "hnsw", **_HNSW}
        return {
            "type": "dense_vector",
            "dims": dimension,
            "index": True,
            "element_type": encoding,
            "similarity": "dot_product" if encoding == "float" else "cosine",
            "index_options": options,
        }

    def vector_settings(self) -> dict[str, Any]:
        """See `Dialect`. Since 9.2 vectors are left out of the stored `_source`, as in OpenSearch 3."""
        if self.vector_type == "none" or self.version < (9, 2, 0):
            return {}
        return {"index.mapping.exclude_source_vectors": False}

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
    if found.distribution == "elasticsearch":
        return ElasticsearchDialect(found.version, "dense_vector" if found.has_knn else "none")
    return OpenSearchDialect(found.version, "knn_vector" if found.has_knn else "none")


def vector_bytes(embeddings: NDArray[np.float32]) -> NDArray[np.int8]:
    """Embeddings, (…, dimension), as signed bytes of the same shape; see `bridge.profile.VectorEncoding`.

    A vector of zeros becomes one of ones: it has no direction, and clusters refuse to compare it by cosine.
    """
    largest = np.abs(embeddings).max(axis=-1, keepdims=True)
    scaled = np.where(largest > 0, embeddings / np.where(largest > 0, largest, 1), 1 / 127)
    stored: NDArray[np.int8] = np.rint(scaled * 127).astype(np.int8)
    return stored


def code_of(embeddings: NDArray[np.float32], terms: Terms, profile: IndexProfile) -> bytes:
    """The code of a document from its embeddings, float32 (n, dimension), or from its terms, as its index has codes
    (`bridge.profile.Codes`); empty if it has none of what the code is made of."""
    if profile.codes == "terms":
        sides = [weight * _plane_sides(term) for term, weight in terms.items()]
        return _signs(np.sum(sides, axis=0)) if sides else b""
    if not len(embeddings):
        return b""
    mean = embeddings.mean(axis=0)
    if profile.codes == "sign":
        return _signs(mean)
    # Not as a product of matrices: see `bridge.search.fusion.cosines`.
    return _signs(np.concatenate([mean, np.einsum("i,ij->j", mean, _planes(len(mean)))]))


def code_bytes(profile: IndexProfile) -> int:
    """The length of each code of an index."""
    match profile.codes:
        case "terms":
            return _TERM_BYTES
        case "planes":
            return -(-(profile.dimension + min(profile.dimension, _MOST_PLANES)) // 8)
        case _:
            return -(-profile.dimension // 8)


def _signs(values: NDArray[np.float32]) -> bytes:
    """One bit for each value, 1 if it is above zero; the last byte ends with zeros."""
    return np.packbits(values > 0).tobytes()


@cache
def _planes(dimension: int) -> NDArray[np.float32]:
    """float32 (dimension, n_planes): pseudo-random planes, the same on every machine. Those at right angles to each
    other say more than independent ones (Ji et al. 2012, "Super-bit locality-sensitive hashing")."""
    shape = (dimension, min(dimension, _MOST_PLANES))
    sides = _sides(shake_256(_PLANES).digest(-(-math.prod(shape) // 8)))
    rotation, scale = np.linalg.qr(sides[: math.prod(shape)].reshape(shape).astype(np.float64))
    # Which way an axis points is left open by the decomposition, and libraries differ.
    planes: NDArray[np.float32] = (rotation * np.sign(np.diagonal(scale))).astype(np.float32)
    return planes


def _plane_sides(term: str) -> NDArray[np.float32]:
    """float32 (n_bits,): on which side of each plane a term's own axis lies, 1 or -1."""
    return _sides(blake2b(term.encode(), digest_size=_TERM_BYTES).digest())


def _sides(digest: bytes) -> NDArray[np.float32]:
    return np.unpackbits(np.frombuffer(digest, dtype=np.uint8)).astype(np.float32) * 2 - 1


def components(profile: IndexProfile, embedding: Sequence[float]) -> list[Any]:
    """An embedding as the index holds it: floats, or integers from -127 to 127."""
    if profile.vector_encoding == "float":
        return list(embedding)
    as_bytes: list[Any] = vector_bytes(np.asarray(embedding, dtype=np.float32)).tolist()
    return as_bytes


def nearest(
    profile: IndexProfile,
    embedding: Sequence[float],
    *,
    k: int,
    allowed: Mapping[str, Any],
    images: bool = False,
) -> dict[str, Any]:
    """The query for the `k` nearest vectors of each shard, among documents that match the `bool` clauses of `allowed`:
    vectors of their texts, or of their `images`.

    The clauses stand inside the k-NN query: beside it they would only remove some of the `k`. The graph of vectors
    ignores field-level security, so an `exists` clause beside it excludes callers from whom the field is hidden.
    """
    field, vector = _vector_field(profile, images), components(profile, embedding)
    condition = {"filter": {"bool": dict(allowed)}} if allowed else {}
    if profile.vector_type == "dense_vector":
        knn: dict[str, Any] = {"field": field, "query_vector": vector, "num_candidates": k, **condition}
    else:
        knn = {field: {"vector": vector, "k": k, **condition}}
    query = {"bool": {"must": [{"knn": knn}], "filter": [{"exists": {"field": field}}]}}
    return query if images else _over_passages(profile, query)


def compared(profile: IndexProfile, embedding: Sequence[float], *, images: bool = False) -> dict[str, Any]:
    """The query that compares every vector with `embedding`, by cosine: slow and exact. Scores are those of `nearest`,
    so that they mean the same whichever of the two found a document."""
    field, vector = _vector_field(profile, images), components(profile, embedding)
    if profile.vector_type == "dense_vector":
        source = "cosineSimilarity(params.query_value, params.field) + 1.0"
        script: dict[str, Any] = {"source": source, "params": {"field": field, "query_value": vector}}
    else:
        parameters = {"field": field, "query_value": vector, "space_type": "cosinesimil"}
        script = {"lang": "knn", "source": "knn_score", "params": parameters}
    # The scripts give 1 + cosine, as the inner product of OpenSearch's floats does; other vectors half of that.
    boost = 1.0 if (profile.vector_type, profile.vector_encoding) == ("knn_vector", "float") else 0.5
    among = {"bool": {"filter": [{"exists": {"field": field}}]}}
    scored = {"script_score": {"query": among, "script": script, "boost": boost}}
    return scored if images else _over_passages(profile, scored)


def weighed(profile: IndexProfile, terms: Terms) -> dict[str, Any]:
    """The query that scores documents by the dot product of their terms' weights and the query's: its `MAX_QUERY_TERMS`
    largest terms count."""
    field = profile.terms_field
    largest = sorted(terms.items(), key=lambda term: -term[1])[:MAX_QUERY_TERMS]
    scored: list[dict[str, Any]]
    if profile.sparse is not None and profile.sparse.terms_type == "sparse_vector":
        # As the query `sparse_vector` does, which is not in every distribution and leaves frequent terms out.
        scored = [{"term": {field: {"value": term, "boost": weight}}} for term, weight in largest]
    else:
        scored = [
            {"rank_feature": {"field": f"{field}.{term}", "linear": {}, "boost": weight}} for term, weight in largest
        ]
    return {"bool": {"should": scored}} if scored else {"match_none": {}}


def graph_bytes(profile: IndexProfile, vector_bytes: int | None = None) -> float:
    """Memory of a vector, of a text unless its bytes are given, and of its links in the graph, by OpenSearch's own
    estimate of HNSW."""
    return 1.1 * ((profile.embedding_bytes if vector_bytes is None else vector_bytes) + 8 * _HNSW["m"])


def _vector_field(profile: IndexProfile, images: bool) -> str:
    return profile.image_embedding_field if images else profile.embedding_field


def _over_passages(profile: IndexProfile, query: dict[str, Any]) -> dict[str, Any]:
    """A query on embeddings as one on documents: the best of their passages counts."""
    if profile.passages.layout == "single":
        return query
    return {"nested": {"path": profile.passages_field, "score_mode": "max", "query": query}}
