"""Is an adapted model worth more than the one that serves? Both rank the same documents for the same held-out queries.

In memory: BM25 over the whole texts stands for the application's query, the vectors' nearest documents are found
exactly, and both are fused and reranked as the index's profile says. Where only a sample of the documents is compared,
all figures are higher than those of searches; their difference is what counts.
"""

from collections.abc import Mapping, Sequence
from typing import Literal, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from bridge.adaptation.index_texts import IndexedText
from bridge.evaluation.gate import MEASURE, TOLERANCE
from bridge.evaluation.judged_queries import JudgedQueries
from bridge.evaluation.measures import bootstrap_interval, evaluate, randomisation_test
from bridge.profile import IndexProfile
from bridge.records import Hit, RankedHit
from bridge.search.fusion import fuse
from bridge.search.reranking import rerank
from bridge.training.mining import bm25_index, bm25_scored

MIN_GAIN = 0.01
"""Of the measure. Embedding an index anew for less is not worth it."""


class Encoder(Protocol):
    """Texts → embeddings; see `bridge.models.encoder`."""

    def encode(self, texts: Sequence[str], role: Literal["query", "passage"] = "query") -> NDArray[np.float32]:
        """float32, (n_texts, dimension), rows of unit length, input order."""


class Scorer(Protocol):
    """Query, passages → scores; see `bridge.models.cross_encoder`."""

    def score(self, query: str, passages: Sequence[str]) -> NDArray[np.float32]:
        """float32, (n_passages,), input order."""


class Difference(msgspec.Struct, frozen=True):
    """What an adapted model changes at one stage: the means of the measure over the held-out queries, the paired
    difference with its 95 % bootstrap interval, and the p-value of a paired randomisation test."""

    stage: str
    serving_mean: float
    adapted_mean: float
    difference: float
    low: float
    high: float
    p_value: float

    def helps(self, *, min_gain: float = MIN_GAIN, tolerance: float = TOLERANCE) -> bool:
        """Whether it gains as much as is asked for, and passes the do-no-harm gate: its interval reaches no
        further below zero than the tolerance."""
        return self.difference >= min_gain and self.low >= -tolerance


class HeldOut:
    """Documents and judged queries, as the index's profile ranks them."""

    def __init__(self, judged: JudgedQueries, documents: Sequence[IndexedText], profile: IndexProfile) -> None:
        self.judged = judged
        self._documents = list(documents)
        self._profile = profile
        self._query_ids = list(judged.queries)
        self._lexical = self._ranked_by_words()

    def by_vectors(self, encoder: Encoder) -> dict[str, list[Hit]]:
        """The nearest documents of each query, each by its nearest passage.

        Raises:
            ModelError: the encoder failed.
        """
        passages = [passage for document in self._documents for passage in document.passages]
        starts = np.cumsum([0, *(len(document.passages) for document in self._documents[:-1])])
        embeddings = encoder.encode(passages, "passage")
        queries = encoder.encode([self.judged.queries[query_id] for query_id in self._query_ids], "query")
        nearest: dict[str, list[Hit]] = {}
        for query_id, query in zip(self._query_ids, queries, strict=True):
            cosines = np.maximum.reduceat(embeddings @ query, starts)
            best = np.argsort(-cosines, kind="stable")[: self._profile.window]
            nearest[query_id] = [self._hit(int(row), float(cosines[row])) for row in best]
        return nearest

    def fused(self, vectors: Mapping[str, list[Hit]]) -> dict[str, list[RankedHit]]:
        """Words and vectors together."""
        weights = self._profile.fusion.weights
        text_weight = max(weights.get("lexical", 0.0), weights.get("expansion", 0.0))
        settings = msgspec.structs.replace(
            self._profile.fusion, weights={"lexical": text_weight, "vector": weights.get("vector", 0.0)}
        )
        return {
            query_id: fuse(
                {"lexical": self._lexical[query_id], "vector": vectors[query_id]}, settings, window=self._profile.window
            )
            for query_id in self._query_ids
        }

    def reranked(self, fused: Mapping[str, list[RankedHit]], scorer: Scorer) -> dict[str, list[RankedHit]]:
        """The fused ranking with its first documents read by a cross-encoder, each by its best passage.

        Raises:
            ModelError: the cross-encoder failed.
        """
        passages = {document.doc_id: document.passages for document in self._documents}
        settings, ranked = self._profile.rerank, {}
        for query_id, hits in fused.items():
            query = self.judged.queries[query_id]
            logits = {hit.key: float(scorer.score(query, passages[hit.doc_id]).max()) for hit in hits[: settings.depth]}
            ranked[query_id] = rerank(hits, logits, settings)
        return ranked

    def difference(
        self,
        stage: str,
        serving: Mapping[str, Sequence[Hit | RankedHit]],
        adapted: Mapping[str, Sequence[Hit | RankedHit]],
    ) -> Difference:
        """Two rankings of every query, measured."""
        before, after = self._values(serving), self._values(adapted)
        interval = bootstrap_interval(after - before)
        return Difference(
            stage=stage,
            serving_mean=round(float(before.mean()), 4),
            adapted_mean=round(float(after.mean()), 4),
            difference=round(interval.mean, 4),
            low=round(interval.low, 4),
            high=round(interval.high, 4),
            p_value=round(randomisation_test(after, before), 4),
        )

    def _values(self, rankings: Mapping[str, Sequence[Hit | RankedHit]]) -> NDArray[np.float64]:
        own = self.judged.own_documents
        run = {
            query_id: [hit.doc_id for hit in hits if not (query_id in own and hit.doc_id == query_id)]
            for query_id, hits in rankings.items()
        }
        return evaluate(self.judged.qrels, run, [MEASURE]).values[MEASURE]

    def _ranked_by_words(self) -> dict[str, list[Hit]]:
        depth = min(self._profile.window, len(self._documents))
        queries = [self.judged.queries[query_id] for query_id in self._query_ids]
        rows, scores = bm25_scored(bm25_index([document.text for document in self._documents]), queries, depth)
        return {
            query_id: [self._hit(int(row), float(score)) for row, score in zip(*found, strict=True) if score > 0]
            for query_id, *found in zip(self._query_ids, rows, scores, strict=True)
        }

    def _hit(self, row: int, score: float) -> Hit:
        return Hit("", self._documents[row].doc_id, score)
