"""Ranks documents in memory to compare models: the search flow without a cluster or a sidecar.

Vectors are compared exactly. The caller supplies the lexical ranking, such as BM25's.
"""

import asyncio
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from bridge.cluster.dialects import code_of
from bridge.errors import CascadeMissing
from bridge.models.protocols import Encoder, Scorer
from bridge.profile import IndexProfile, Stage
from bridge.records import Hit, Key, Passage, RankedHit, Terms
from bridge.search.cascade import CascadeRequest
from bridge.search.flow import Backend, rank
from bridge.search.json_tree import Json
from bridge.search.request import words_request


@dataclass(frozen=True, slots=True)
class Vectors:
    """Embeddings of one encoder, rows of unit length: `passages` of all documents, and `queries`, in corpus order."""

    passages: NDArray[np.float32]
    queries: NDArray[np.float32]


class TermWeights:
    """The weighted terms of documents, by their place in the corpus, and of queries in theirs."""

    def __init__(self, documents: Sequence[Terms], queries: Sequence[Terms]) -> None:
        self.documents = documents
        self.queries = queries
        postings: dict[str, list[tuple[int, float]]] = {}
        for place, terms in enumerate(documents):
            for term, weight in terms.items():
                postings.setdefault(term, []).append((place, weight))
        self._postings = {
            term: (np.array([place for place, _ in found]), np.array([weight for _, weight in found]))
            for term, found in postings.items()
        }

    def scores(self, terms: Terms) -> NDArray[np.float64]:
        """The dot product of a query's terms and each document's: float64, (n_documents,)."""
        scores = np.zeros(len(self.documents))
        for term, weight in terms.items():
            if term in self._postings:
                places, weights = self._postings[term]
                scores[places] += weight * weights
        return scores


class Corpus:
    """Documents and queries to rank by a profile, without predicted queries."""

    def __init__(
        self,
        documents: Mapping[str, Sequence[str]],
        queries: Mapping[str, str],
        lexical: Mapping[str, Sequence[Hit]],
        profile: IndexProfile,
        *,
        index: str = "",
    ) -> None:
        """`documents`: passages by doc_id, at least one each; `queries`: text by query_id; `lexical`: hits by
        query_id, best first; `index`: that of the hits."""
        self.keys: list[Key] = [(index, doc_id) for doc_id in documents]
        self.passages = [passage for passages in documents.values() for passage in passages]
        counts = [len(passages) for passages in documents.values()]
        self.starts = np.cumsum([0, *counts[:-1]])
        self.spans = {
            key: slice(start, start + n) for key, start, n in zip(self.keys, self.starts.tolist(), counts, strict=True)
        }
        self.lexical = lexical
        self._queries = queries
        self.profile = msgspec.structs.replace(profile, generator=None)

    def embed(self, encoder: Encoder) -> Vectors:
        """Embeds all passages and queries.

        Raises:
            ModelError: the encoder failed.
        """
        queries = list(self._queries.values())
        return Vectors(encoder.encode(self.passages, "passage"), encoder.encode(queries, "query"))

    def rank(
        self, stage: Stage, vectors: Vectors, scorer: Scorer | None = None, *, weights: TermWeights | None = None
    ) -> dict[str, Sequence[RankedHit]]:
        """Hits by query_id, best first, of a search that stops at `stage`; reranking needs a `scorer`, and leg `sparse`
        the terms' `weights`.

        Raises:
            ModelError: the cross-encoder failed.
        """
        return asyncio.run(self._rank(stage, vectors, scorer, weights))

    async def _rank(
        self, stage: Stage, vectors: Vectors, scorer: Scorer | None, weights: TermWeights | None
    ) -> dict[str, Sequence[RankedHit]]:
        rankings: dict[str, Sequence[RankedHit]] = {}
        profile = msgspec.structs.replace(self.profile, dimension=vectors.queries.shape[1])
        for row, (query_id, text) in enumerate(self._queries.items()):
            terms = weights.queries[row] if weights is not None else None
            backend = MemoryBackend(self, self.lexical[query_id], vectors, vectors.queries[row], scorer, weights, terms)
            request = words_request(text, self.profile.text_fields)
            rankings[query_id] = (await rank(request, profile, stage, backend)).hits
        return rankings


@dataclass(frozen=True, slots=True)
class MemoryBackend(Backend):
    """Backend for one query of a corpus; `query` is its embedding, `terms` are its weighted terms."""

    corpus: Corpus
    lexical: Sequence[Hit]
    vectors: Vectors
    query: NDArray[np.float32]
    scorer: Scorer | None = None
    weights: TermWeights | None = None
    terms: Terms | None = None

    async def embed(self, text: str) -> Sequence[float]:
        return list(map(float, self.query))

    async def weigh(self, text: str) -> Terms | None:
        return self.terms

    async def search(self, bodies: Mapping[str, Json]) -> Mapping[str, Sequence[Hit]]:
        found = {leg: self._found(leg, body["size"]) for leg, body in bodies.items()}
        name = self.corpus.profile.code_field
        return {
            leg: self._coded(hits) if name in bodies[leg].get("docvalue_fields", ()) else hits
            for leg, hits in found.items()
        }

    def _coded(self, hits: Sequence[Hit]) -> list[Hit]:
        """The hits with their codes as a cluster gives them."""
        corpus = self.corpus
        coded = []
        for hit in hits:
            span = corpus.spans[hit.key]
            terms = self.weights.documents[span.start] if self.weights is not None else {}
            code = code_of(self.vectors.passages[span], terms, corpus.profile)
            fields = {**hit.fields, corpus.profile.code_field: [b64encode(code).decode()]}
            coded.append(msgspec.structs.replace(hit, fields=fields))
        return coded

    def _found(self, leg: str, n_documents: int) -> Sequence[Hit]:
        if leg == "vector":
            # A document is as near as its nearest passage.
            return self._best(np.maximum.reduceat(self.vectors.passages @ self.query, self.corpus.starts), n_documents)
        if leg == "sparse" and self.weights is not None:
            scores = self.weights.scores(self.terms or {})
            return self._best(scores, min(n_documents, int(np.count_nonzero(scores))))
        return self.lexical[:n_documents]

    def _best(self, scores: NDArray[np.floating[Any]], n_documents: int) -> list[Hit]:
        best = np.argsort(-scores, kind="stable")[:n_documents].tolist()
        keys = self.corpus.keys
        return [Hit(keys[row][0], keys[row][1], float(scores[row])) for row in best]

    async def read(
        self, keys: Sequence[Key], embedding: Sequence[float] | None, *, passages: int
    ) -> Mapping[Key, Sequence[Passage]]:
        return {key: self._passages(self.corpus.spans[key], passages) for key in keys}

    def _passages(self, span: slice, n_passages: int) -> list[Passage]:
        texts = self.corpus.passages[span]
        order = np.argsort(-(self.vectors.passages[span] @ self.query), kind="stable")[:n_passages]
        return [Passage(texts[place], 0, len(texts[place])) for place in order]

    def check_cascade(self) -> None:
        raise CascadeMissing("models in memory are compared without a cascade")

    async def score(
        self, text: str, passages: Sequence[str], *, cascade: CascadeRequest | None = None
    ) -> Sequence[float] | None:
        return None if self.scorer is None else list(map(float, self.scorer.score(text, passages)))
