"""What a cluster says of itself, what follows from it, and how each engine says the same thing."""

from typing import Any

import msgspec
import numpy as np
import pytest

from bridge.cluster.dialects import (
    MAX_QUERY_TERMS,
    Capabilities,
    dialect_of,
    read_capabilities,
    vector_bytes,
    weighed,
)
from bridge.errors import AnswerNotUnderstood
from bridge.profile import IndexProfile, ModelReference, SparseSettings


def opensearch(number: str) -> dict[str, Any]:
    return {"version": {"distribution": "opensearch", "number": number}}


KNN = [{"component": "opensearch-knn", "version": "2.19.1.0"}, {"component": "opensearch-security", "version": "x"}]


@pytest.mark.parametrize(
    ("info", "plugins", "told", "engines", "vector_type"),
    [
        pytest.param(opensearch("3.6.0"), KNN, "opensearch 3.6.0", ("lucene", "faiss"), "knn_vector", id="knn"),
        pytest.param(opensearch("2.19.1-SNAPSHOT"), [], "opensearch 2.19.1", (), "none", id="without-knn"),
        pytest.param(opensearch("1.3.2"), KNN, "opensearch 1.3.2", ("faiss",), "knn_vector", id="before-lucene"),
        pytest.param(opensearch("2.19.1"), None, "opensearch 2.19.1", ("lucene", "faiss"), "knn_vector", id="hidden"),
        pytest.param(opensearch("7.10.2"), KNN, "opensearch 2.19.1", ("lucene", "faiss"), "knn_vector", id="pretends"),
        pytest.param(opensearch("7.10.2"), None, "opensearch 1.3.0", ("faiss",), "knn_vector", id="pretends-hidden"),
        pytest.param(
            {"version": {"number": "9.4.3"}}, [], "elasticsearch 9.4.3", ("built in",), "dense_vector", id="9"
        ),
        pytest.param({"version": {"number": "8.11.4"}}, [], "elasticsearch 8.11.4", (), "none", id="before-knn-query"),
        pytest.param(
            {"version": {"number": "8.11.0", "build_flavor": "serverless"}},
            [],
            "elasticsearch 8.11.0 serverless",
            ("built in",),
            "dense_vector",
            id="serverless",
        ),
    ],
)
def test_vectors_follow_from_distribution_version_and_plugins(
    info: object, plugins: object, told: str, engines: tuple[str, ...], vector_type: str
) -> None:
    found = read_capabilities(info, plugins)
    assert (str(found), found.vector_engines, found.has_knn) == (told, engines, bool(engines))
    assert dialect_of(found).vector_type == vector_type


WEIGHED = IndexProfile(
    text_fields=["title"],
    encoder=ModelReference("toy", "0" * 12),
    dimension=2,
    sparse=SparseSettings(ModelReference("toy", "1" * 12)),
)


def test_a_querys_terms_are_weighed_as_the_index_holds_those_of_documents() -> None:
    elasticsearch = SparseSettings(ModelReference("toy", "1" * 12), terms_type="sparse_vector")
    terms = {"shoe": 2.0, "##s": 0.5}
    assert weighed(WEIGHED, terms)["bool"]["should"] == [
        {"rank_feature": {"field": "_neural.terms.shoe", "linear": {}, "boost": 2.0}},
        {"rank_feature": {"field": "_neural.terms.##s", "linear": {}, "boost": 0.5}},
    ]
    assert weighed(msgspec.structs.replace(WEIGHED, sparse=elasticsearch), terms)["bool"]["should"] == [
        {"term": {"_neural.terms": {"value": "shoe", "boost": 2.0}}},
        {"term": {"_neural.terms": {"value": "##s", "boost": 0.5}}},
    ]


def test_the_largest_terms_of_a_long_query_count_and_a_query_without_any_finds_nothing() -> None:
    many = {f"t{n}": 1.0 + n for n in range(200)}
    fields = [clause["rank_feature"]["field"] for clause in weighed(WEIGHED, many)["bool"]["should"]]
    assert fields == [f"_neural.terms.t{n}" for n in range(199, 199 - MAX_QUERY_TERMS, -1)]
    assert weighed(WEIGHED, {}) == {"match_none": {}}


@pytest.mark.parametrize("info", [{"hello": "world"}, [], "text", {"version": {"number": "soon"}}])
def test_another_service_is_recognised(info: object) -> None:
    with pytest.raises(AnswerNotUnderstood, match="not as OpenSearch or Elasticsearch do"):
        read_capabilities(info, [])


@pytest.mark.parametrize(
    ("found", "supported"),
    [
        (Capabilities("opensearch", (1, 3, 0)), True),
        (Capabilities("opensearch", (1, 2, 4)), False),
        (Capabilities("elasticsearch", (7, 10, 0)), True),
        (Capabilities("elasticsearch", (6, 8, 23)), False),
        (Capabilities("another", (9, 0, 0)), False),
    ],
)
def test_old_and_foreign_clusters_are_not_supported(found: Capabilities, supported: bool) -> None:
    assert found.is_supported == supported


def test_vectors_as_bytes_keep_their_direction() -> None:
    embeddings = np.random.default_rng(1).normal(size=(50, 384)).astype(np.float32)
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)

    stored = vector_bytes(embeddings)

    assert (str(stored.dtype), stored.shape) == ("int8", embeddings.shape)
    assert np.abs(stored).max(axis=1).tolist() == [127] * 50
    lengths = np.linalg.norm(stored.astype(np.float64), axis=1)
    assert ((stored * embeddings).sum(axis=1) / lengths).min() > 0.9999


def test_a_vector_without_direction_gets_one_that_clusters_can_compare() -> None:
    assert vector_bytes(np.zeros((1, 3), dtype=np.float32)).tolist() == [[1, 1, 1]]
