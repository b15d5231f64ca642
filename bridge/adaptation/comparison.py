"""Compares an adapted model with the serving one: both rank the same documents for the same held-out queries.

In memory: BM25 over whole texts stands for the application's query, vectors are compared exactly, and both are fused
and reranked by the index's profile. On a sample of the documents all figures are higher than those of real searches;
only their difference counts.
"""

from collections.abc import Mapping, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from bridge.adaptation.index_texts import IndexedText
from bridge.evaluation.gate import MEASURE, TOLERANCE
from bridge.evaluation.judged_queries import JudgedQueries
from bridge.evaluation.measures import bootstrap_interval, evaluate, randomisation_test
from bridge.evaluation.memory import Corpus, Vectors
from bridge.models.protocols import Encoder, Scorer
from bridge.profile import IndexProfile, Stage
from bridge.records import Hit, RankedHit
from bridge.training.mining import bm25_index, bm25_scored

MIN_GAIN = 0.01
"""In units of the measure. A smaller gain is not worth embedding an index again."""


class Difference(msgspec.Struct, frozen=True):
    """The effect of an adapted model at one stage: the means of the measure over the held-out queries, the paired
    difference with its 95 % bootstrap interval, and the p-value of a paired randomisation test."""

    stage: str
    serving_mean: float
    adapted_mean: float
    difference: float
    low: float
    high: float
    p_value: float

    def helps(self, *, min_gain: float = MIN_GAIN, tolerance: float = TOLERANCE) -> bool:
        """Whether the gain is at least `min_gain` and the model passes the do-no-harm gate: the interval reaches at
        most `tolerance` below zero."""
        return self.difference >= min_gain and self.low >= -tolerance


class HeldOutQueries:
    """Judged queries that no model learnt from, ranked over documents by the index's profile."""

    def __init__(self, judged: JudgedQueries, documents: Sequence[IndexedText], profile: IndexProfile) -> None:
        self.judged = judged
        self._corpus = Corpus(
            {document.doc_id: document.passages for document in documents},
            judged.queries,
            _bm25_rankings(judged.queries, documents, profile.window),
            profile,
        )

    def embed(self, encoder: Encoder) -> Vectors:
        """Embeds all passages and queries.

        Raises:
            ModelError: the encoder failed.
        """
        return self._corpus.embed(encoder)

    def rank(self, stage: Stage, vectors: Vectors, scorer: Scorer | None = None) -> dict[str, Sequence[RankedHit]]:
        """The ranking of every query at a stage; `scorer` reranks.

        Raises:
            ModelError: the cross-encoder failed.
        """
        return self._corpus.rank(stage, vectors, scorer)

    def difference(
        self,
        stage: str,
        serving: Mapping[str, Sequence[RankedHit]],
        adapted: Mapping[str, Sequence[RankedHit]],
    ) -> Difference:
        """Measures two rankings of every query."""
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

    def _values(self, rankings: Mapping[str, Sequence[RankedHit]]) -> NDArray[np.float64]:
        own = self.judged.own_documents
        run = {
            query_id: [hit.doc_id for hit in hits if not (query_id in own and hit.doc_id == query_id)]
            for query_id, hits in rankings.items()
        }
        return evaluate(self.judged.qrels, run, [MEASURE]).values[MEASURE]


def _bm25_rankings(
    queries: Mapping[str, str], documents: Sequence[IndexedText], window: int
) -> dict[str, Sequence[Hit]]:
    """BM25 over whole texts: hits by query_id."""
    depth = min(window, len(documents))
    rows, scores = bm25_scored(bm25_index([document.text for document in documents]), list(queries.values()), depth)
    return {
        query_id: [Hit("", documents[row].doc_id, float(score)) for row, score in zip(*found, strict=True) if score > 0]
        for query_id, *found in zip(queries, rows, scores, strict=True)
    }
