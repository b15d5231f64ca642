"""Development sets: judged queries with fixed candidates that a reranker is evaluated on during training.

The candidates of a query are the best of BM25 and of the bi-encoder, fused by reciprocal ranks (Cormack et al. 2009, k
60), like the candidates of a hybrid search.
"""

from collections.abc import Callable, Mapping, Sequence

import ir_measures
import msgspec
import numpy as np
from ir_measures import nDCG
from numpy.typing import NDArray

from bridge.training.data import JudgedCollection, development_queries
from bridge.training.mining import Embed, bm25_index, bm25_top

Score = Callable[[str, Sequence[str]], NDArray[np.float32]]
"""Query, passages → float32 (n_passages,), input order."""


class JudgedCandidates(msgspec.Struct, frozen=True):
    """A query with its candidates, best first by the hybrid ranking; `lexical_ranks` are BM25's (first is 1; one
    past the depth if BM25 does not return the document)."""

    query_id: str
    query: str
    doc_ids: list[str]
    texts: list[str]
    lexical_ranks: list[int]
    judgements: Mapping[str, int]


class DevelopmentSet(msgspec.Struct, frozen=True):
    name: str
    queries: list[JudgedCandidates]


def development_set(collection: JudgedCollection, embed: Embed, *, n_queries: int, depth: int) -> DevelopmentSet:
    """The hybrid's best `depth` candidates for the collection's development queries."""
    doc_ids = list(collection.documents)
    texts = [f"{title}. {text}" if title else text for title, text in collection.documents.values()]
    query_ids = development_queries(collection, n_queries)
    queries = [collection.queries[query_id] for query_id in query_ids]
    lexical = bm25_top(bm25_index(texts), queries, depth)
    embeddings = embed(texts)
    dense = np.argsort(-(embed(queries) @ embeddings.T), axis=1, kind="stable")[:, :depth]
    judged = []
    for number, query_id in enumerate(query_ids):
        fused: dict[int, float] = {}
        for ranking in (lexical[number], dense[number]):
            for rank, row in enumerate(ranking, start=1):
                fused[int(row)] = fused.get(int(row), 0.0) + 1.0 / (60 + rank)
        rows = sorted(fused, key=lambda row: -fused[row])[:depth]
        lexical_rank = {int(row): rank for rank, row in enumerate(lexical[number], start=1)}
        judged.append(
            JudgedCandidates(
                query_id=query_id,
                query=queries[number],
                doc_ids=[doc_ids[row] for row in rows],
                texts=[texts[row] for row in rows],
                lexical_ranks=[lexical_rank.get(row, depth + 1) for row in rows],
                judgements=collection.judgements[query_id],
            )
        )
    return DevelopmentSet(collection.name, judged)


def ranking_figures(sets: Sequence[DevelopmentSet], score: Score, *, n_queries: int, depth: int) -> dict[str, float]:
    """nDCG@10 by "SET/first" (hybrid), "SET/rerank" (scores alone) and "SET/blend" (the mean
    of both, each standardised within the query).
    """
    figures: dict[str, float] = {}
    for development in sets:
        runs: dict[str, dict[str, dict[str, float]]] = {"first": {}, "rerank": {}, "blend": {}}
        judgements: dict[str, Mapping[str, int]] = {}
        for judged in development.queries[:n_queries]:
            doc_ids = judged.doc_ids[:depth]
            scores = score(judged.query, judged.texts[:depth]).astype(np.float64)
            first = np.array([1.0 / (60 + rank) for rank in range(1, len(doc_ids) + 1)])
            for name, values in (
                ("first", first),
                ("rerank", scores),
                ("blend", _standardised(scores) + _standardised(first)),
            ):
                runs[name][judged.query_id] = dict(zip(doc_ids, values.tolist(), strict=True))
            judgements[judged.query_id] = judged.judgements
        for name, run in runs.items():
            figures[f"{development.name}/{name}"] = float(
                ir_measures.calc_aggregate([nDCG @ 10], judgements, run)[nDCG @ 10]
            )
    return figures


def _standardised(values: NDArray[np.float64]) -> NDArray[np.float64]:
    standardised: NDArray[np.float64] = (values - values.mean()) / (values.std() + 1e-9)
    return standardised
