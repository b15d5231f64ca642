"""Documents ranked in memory, with vectors and scores that were written by hand."""

from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from bridge.errors import CascadeMissing
from bridge.evaluation.memory import Corpus, MemoryBackend, TermWeights, Vectors
from bridge.profile import (
    FusionSettings,
    IndexProfile,
    ModelReference,
    PassageSettings,
    RerankSettings,
    SparseSettings,
)
from bridge.records import Hit, Passage, RankedHit

PROFILE = IndexProfile(
    text_fields=["text"],
    encoder=ModelReference("encoder", "0" * 12),
    generator=ModelReference("generator", "0" * 12),
    dimension=2,
    passages=PassageSettings(layout="nested"),
    fusion=FusionSettings("rrf", 60, {"lexical": 1.0, "vector": 1.0}),
    rerank=RerankSettings(depth=2, blend=0.0),
)
EAST, NORTH, BETWEEN = (1.0, 0.0), (0.0, 1.0), (0.6, 0.8)
DIRECTIONS = {"east": EAST, "north": NORTH, "between": BETWEEN}
DOCUMENTS = {"e": ["east"], "long": ["north", "east"], "b": ["between"], "n": ["north"]}
QUERIES = {"q1": "north", "q2": "east"}
LEXICAL = {"q1": [Hit("", "b", 2.0), Hit("", "e", 1.0)], "q2": [Hit("", "n", 1.0)]}


class Directions:
    """An encoder that knows the vector of each text."""

    dimension = 2

    def encode(self, texts: Sequence[str], role: Literal["query", "passage"] = "query") -> NDArray[np.float32]:
        return np.array([DIRECTIONS[text] for text in texts], dtype=np.float32)


class Literalist:
    """A cross-encoder that prefers the query's own words."""

    def score(self, query: str, passages: Sequence[str]) -> NDArray[np.float32]:
        return np.array([1.0 if passage == query else -1.0 for passage in passages], dtype=np.float32)


@pytest.fixture
def corpus() -> Corpus:
    return Corpus(DOCUMENTS, QUERIES, LEXICAL, PROFILE)


@pytest.fixture
def vectors(corpus: Corpus) -> Vectors:
    return corpus.embed(Directions())


def ids(rankings: Mapping[str, Sequence[RankedHit]]) -> dict[str, list[str]]:
    return {query_id: [hit.doc_id for hit in hits] for query_id, hits in rankings.items()}


def test_every_passage_and_query_has_a_vector_in_the_order_of_the_corpus(vectors: Vectors) -> None:
    assert vectors.passages.tolist() == np.array([EAST, NORTH, EAST, BETWEEN, NORTH], dtype=np.float32).tolist()
    assert vectors.queries.tolist() == [list(NORTH), list(EAST)]


def test_a_document_is_as_near_as_its_nearest_passage(corpus: Corpus, vectors: Vectors) -> None:
    assert ids(corpus.rank("vector", vectors)) == {"q1": ["long", "n", "b", "e"], "q2": ["e", "long", "b", "n"]}


def test_hybrid_fuses_the_callers_lexical_ranking_and_the_vectors_alone(corpus: Corpus, vectors: Vectors) -> None:
    """The profile names a generator, but the documents in memory hold no predicted queries."""
    first = corpus.rank("hybrid", vectors)["q1"][0]
    assert first.doc_id == "b"
    assert {leg: score.rank for leg, score in first.legs.items()} == {"lexical": 1, "vector": 3}


def test_documents_without_a_term_of_the_querys_are_not_found_by_terms(corpus: Corpus, vectors: Vectors) -> None:
    weighed = msgspec.structs.replace(PROFILE, sparse=SparseSettings(ModelReference("sparse", "0" * 12)))
    documents = [{"north": 1.0, "pole": 2.0}, {"north": 3.0}, {"south": 9.0}, {}]
    weights = TermWeights(documents, [{"north": 1.0, "pole": 2.0}, {"east": 1.0}])
    found = Corpus(DOCUMENTS, QUERIES, LEXICAL, weighed).rank("sparse", vectors, weights=weights)
    assert ids(found) == {"q1": ["e", "long"], "q2": []}
    assert [hit.legs["sparse"].score for hit in found["q1"]] == [5.0, 3.0]


def test_a_cross_encoder_orders_the_best_by_their_nearest_passages(corpus: Corpus, vectors: Vectors) -> None:
    assert ids(corpus.rank("hybrid", vectors))["q2"] == ["n", "e", "long", "b"]
    reranked = corpus.rank("rerank", vectors, Literalist())["q2"]
    assert [(hit.doc_id, hit.rerank_score) for hit in reranked] == [
        ("e", 1.0),
        ("n", -1.0),
        ("long", None),
        ("b", None),
    ]


async def test_the_nearest_passages_of_a_document_are_read_first(corpus: Corpus, vectors: Vectors) -> None:
    backend = MemoryBackend(corpus, LEXICAL["q2"], vectors, vectors.queries[1])
    read = await backend.read([("", "long"), ("", "n")], None, passages=2)
    assert read == {
        ("", "long"): [Passage("east", 0, 4), Passage("north", 0, 5)],
        ("", "n"): [Passage("north", 0, 5)],
    }


async def test_there_is_no_cascade_and_without_a_scorer_no_score(corpus: Corpus, vectors: Vectors) -> None:
    backend = MemoryBackend(corpus, LEXICAL["q1"], vectors, vectors.queries[0])
    assert await backend.score("north", ["east"]) is None
    with pytest.raises(CascadeMissing):
        backend.check_cascade()
