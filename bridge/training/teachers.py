"""Teachers: the scores of trained models for a student's candidates.

Any encoder, sparse encoder or cross-encoder can teach (Hofstätter et al. 2020, "Improving efficient neural ranking
models with cross-architecture knowledge distillation"). Their scores have different scales; they are standardised and
summed to one logit, on the scale on which the judged passages are likeliest (conditional logit).

Encoders embed each text alone, so they can teach every query of a batch against every passage of it (in-batch
distillation, Lin et al. 2021, "In-batch negatives for knowledge distillation with tightly-coupled teachers":
https://aclanthology.org/2021.repl4nlp-1.17/). Cross-encoders score only each query's own list.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import structlog
from numpy.typing import NDArray

from bridge.models.artifact import ModelFolder
from bridge.models.cross_encoder import CrossEncoder
from bridge.models.encoder import Encoder
from bridge.models.sparse_encoder import SparseEncoder
from bridge.search.fusion import N_NEIGHBOURS, NEARNESS_POWER
from bridge.training.mining import CandidateSet, Embed, bm25_index, bm25_scores

log = structlog.get_logger(__name__)

TeacherLogits = list[list[float]]
"""Per candidate list, one logit for each of its `rows`."""

ListScores = list[NDArray[np.float32]]
"""Per candidate list, one teacher's score of each of its `rows`, float32 (n_rows,)."""

UNKNOWN = -np.inf
"""The logit of a passage that no teacher scored."""

_FITTED_LISTS = 5000
_SPREAD_OVER = 1000
_SEED = 0

_SMOOTHING = 0.4
"""The share of a passage's neighbours in its smoothed score."""

_LEAST_SCALE = 0.5


def teacher_logits(candidates: CandidateSet, teachers: Sequence[ModelFolder]) -> TeacherLogits:
    """Logits of the ensemble of `teachers`, BM25 and the mining bi-encoder, whose cosines are in the candidates.

    Each kind has one vote, the mean of its standard scores within a list. Equal votes, because it depends on the given
    pairs which teacher ranks the judged passages best; only the scale of their mean is fitted (see `fitted_weights`).
    Passages that the encoders among the teachers find alike get logits that are alike (score regularisation, see
    `bridge.search.fusion.fuse`).

    Raises:
        ModelError: a teacher is neither encoder, cross-encoder nor sparse encoder, or fails.
    """
    votes: dict[str, list[ListScores]] = {
        "words": [_bm25_scores(candidates)],
        "encoder": [[np.array(each.cosines, dtype=np.float32) for each in candidates.lists]],
    }
    embeddings: list[NDArray[np.float32]] = []
    for teacher in teachers:
        log.info("scoring", teacher=teacher.identity)
        match teacher.manifest.kind:
            case "cross_encoder":
                scores = _cross_encoder_scores(candidates, CrossEncoder.load(teacher))
            case "sparse_encoder":
                scores = _sparse_scores(candidates, SparseEncoder.load(teacher))
            case _:
                queries, passages = _embedded(candidates, teacher)
                embeddings.append(passages)
                scores = [passages[each.rows] @ query for query, each in zip(queries, candidates.lists, strict=True)]
        votes.setdefault(teacher.manifest.kind, []).append(scores)
    ensemble = [
        _ensemble(each.rows, [[scores[number] for scores in kind] for kind in votes.values()], embeddings)
        for number, each in enumerate(candidates.lists)
    ]
    [scale] = fitted_weights([one[:, None] for one in ensemble[:: max(1, len(ensemble) // _FITTED_LISTS)]])
    log.info("scaled", scale=round(float(scale), 2))
    # Teachers that rank the judged passages no better than chance still teach their order.
    return [(one * max(scale, _LEAST_SCALE)).tolist() for one in ensemble]


def _ensemble(
    rows: Sequence[int], votes: Sequence[Sequence[NDArray[np.float32]]], embeddings: Sequence[NDArray[np.float32]]
) -> NDArray[np.float32]:
    """float32 (n_rows,), standardised: what the teachers think of one list, which has these `rows`.

    `votes`: per kind, each teacher's scores, (n_rows,). `embeddings`: each encoder's, of all passages; without any,
    nothing is smoothed.
    """
    # A passage that both searches return is in the list twice, and must not count twice.
    distinct, first, places = np.unique(rows, return_index=True, return_inverse=True)
    joined = np.mean([np.mean([_standardised(scores[first]) for scores in kind], axis=0) for kind in votes], axis=0)
    if embeddings and len(distinct) > 1:
        cosines = np.mean([each[distinct] @ each[distinct].T for each in embeddings], axis=0)
        joined = (1 - _SMOOTHING) * joined + _SMOOTHING * (_neighbour_weights(cosines) @ joined)
    return _standardised(joined)[places]


def _neighbour_weights(cosines: NDArray[np.float32]) -> NDArray[np.float32]:
    """float32 (n, n): how much each of a passage's nearest others counts in its smoothed score; rows add up to 1."""
    nearness = cosines.clip(0) ** NEARNESS_POWER
    np.fill_diagonal(nearness, 0.0)
    distant = np.argsort(-nearness, axis=1, kind="stable")[:, N_NEIGHBOURS:]
    np.put_along_axis(nearness, distant, 0.0, axis=1)
    weights: NDArray[np.float32] = nearness / (nearness.sum(axis=1, keepdims=True) + 1e-9)
    return weights


def _standardised(scores: NDArray[np.float32]) -> NDArray[np.float32]:
    standardised: NDArray[np.float32] = (scores - scores.mean()) / (scores.std() + 1e-6)
    return standardised


def fitted_weights(
    features: Sequence[NDArray[np.float32]], *, n_steps: int = 200, step_size: float = 0.05, decay: float = 0.0
) -> NDArray[np.float32]:
    """float32 (n_features,): the weights that make the first of each list's rows likeliest under a softmax (Cao et al.
    2007), by Adam on standardised features.

    `features`: per list float32 (n_candidates, n_features), the judged passage first. `decay` draws weights to zero.
    """
    shape = (len(features), max(map(len, features)))
    padded = np.zeros((*shape, features[0].shape[1]))
    absent = np.full(shape, -np.inf)
    for number, rows in enumerate(features):
        padded[number, : len(rows)] = rows
        absent[number, : len(rows)] = 0.0
    spread = np.concatenate(features).std(axis=0) + 1e-6
    padded /= spread
    weights = np.zeros(padded.shape[2])
    mean, square = np.zeros_like(weights), np.zeros_like(weights)
    for step in range(1, n_steps + 1):
        logits = padded @ weights + absent
        shares = np.exp(logits - logits.max(axis=1, keepdims=True))
        shares /= shares.sum(axis=1, keepdims=True)
        gradient = np.einsum("lp,lpf->f", shares, padded) / len(features) - padded[:, 0].mean(axis=0) + decay * weights
        mean = 0.9 * mean + 0.1 * gradient
        square = 0.99 * square + 0.01 * gradient**2
        weights -= step_size * (mean / (1 - 0.9**step)) / (np.sqrt(square / (1 - 0.99**step)) + 1e-8)
    return np.asarray(weights / spread, dtype=np.float32)


def all_embed(teachers: Sequence[ModelFolder]) -> bool:
    """Whether all teachers are encoders, and so can score any query against any passage."""
    return all(teacher.manifest.kind == "encoder" for teacher in teachers)


class Teaching(Protocol):
    """Lists are numbered as in the candidate set, passages as in its pool. `share`: weight of the teachers in the
    loss."""

    share: float

    def logits(self, lists: Sequence[int], rows: Sequence[int]) -> NDArray[np.float32]:
        """float32 (n_lists, n_rows): the teachers' logit of each passage for each query, or `UNKNOWN`."""


class ListTeaching:
    """Scores each query against its own list only."""

    share = 0.4

    def __init__(self, candidates: CandidateSet, logits: TeacherLogits) -> None:
        self._known = [
            dict(zip(each.rows, own, strict=True)) for each, own in zip(candidates.lists, logits, strict=True)
        ]

    def logits(self, lists: Sequence[int], rows: Sequence[int]) -> NDArray[np.float32]:
        return np.array([[self._known[number].get(row, UNKNOWN) for row in rows] for number in lists], dtype=np.float32)


class VectorTeaching:
    """Scores all queries, float16 (n_lists, dimension), against all passages, float16 (n_passages, dimension)."""

    share = 0.8

    def __init__(self, queries: NDArray[np.float16], passages: NDArray[np.float16]) -> None:
        self._queries = queries
        self._passages = passages

    @classmethod
    def of(cls, candidates: CandidateSet, teachers: Sequence[ModelFolder], embed: Embed) -> "VectorTeaching":
        """The ensemble of encoders and of `embed`, all weighted equally.

        Equally, because it depends on the given pairs which encoder ranks the judged passages best; only the scale of
        their sum is fitted (see `fitted_weights`).

        Raises:
            ModelError: a teacher fails.
        """
        texts = [passage.text for passage in candidates.passages]
        queries = [each.query for each in candidates.lists]
        embedded = [(embed(queries), embed(texts)), *(_embedded(candidates, teacher) for teacher in teachers)]
        generator = np.random.default_rng(_SEED)
        some_queries = generator.integers(len(queries), size=min(_SPREAD_OVER, len(queries)))
        some_texts = generator.integers(len(texts), size=min(_SPREAD_OVER, len(texts)))
        spread = np.array([(q[some_queries] @ p[some_texts].T).std(axis=1).mean() for q, p in embedded]).clip(1e-6)
        cosines = [
            np.stack([p[each.rows] @ q[number] for q, p in embedded], axis=1)
            for number, each in enumerate(candidates.lists)
        ]
        fitted = fitted_weights(cosines[:: max(1, len(cosines) // _FITTED_LISTS)])
        weights = (fitted * spread).mean().clip(1e-6) / spread
        # A sum of weighted cosines is the product of vectors side by side.
        weighted = [q * weight for (q, _), weight in zip(embedded, weights, strict=True)]
        return cls(_side_by_side(weighted), _side_by_side([p for _, p in embedded]))

    def logits(self, lists: Sequence[int], rows: Sequence[int]) -> NDArray[np.float32]:
        return self._queries[lists].astype(np.float32) @ self._passages[rows].astype(np.float32).T

    def save(self, file: Path) -> None:
        """Writes NumPy's format; `load` reads it back."""
        np.savez(file, queries=self._queries, passages=self._passages)

    @classmethod
    def load(cls, file: Path) -> "VectorTeaching":
        with np.load(file) as arrays:
            return cls(arrays["queries"], arrays["passages"])


def _side_by_side(vectors: Sequence[NDArray[np.float32]]) -> NDArray[np.float16]:
    return np.concatenate(vectors, axis=1, dtype=np.float16, casting="same_kind")


def _embedded(candidates: CandidateSet, teacher: ModelFolder) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    encoder = Encoder.load(teacher)
    queries = encoder.encode([each.query for each in candidates.lists], "query")
    passages = encoder.encode([passage.text for passage in candidates.passages], "passage")
    encoder.close()
    return queries, passages


def _bm25_scores(candidates: CandidateSet) -> ListScores:
    index = bm25_index([passage.text for passage in candidates.passages])
    return [bm25_scores(index, each.query)[each.rows] for each in candidates.lists]


def _sparse_scores(candidates: CandidateSet, encoder: SparseEncoder) -> ListScores:
    passages = encoder.encode([passage.text for passage in candidates.passages])
    scores = []
    for each in candidates.lists:
        terms = encoder.query_terms(each.query)
        products = [sum(weight * passages[row].get(term, 0.0) for term, weight in terms.items()) for row in each.rows]
        scores.append(np.array(products, dtype=np.float32))
    encoder.close()
    return scores


def _cross_encoder_scores(candidates: CandidateSet, cross_encoder: CrossEncoder) -> ListScores:
    scores = []
    for each in candidates.lists:
        rows = list(dict.fromkeys(each.rows))
        logits = cross_encoder.score(each.query, [candidates.passages[row].text for row in rows])
        by_row = dict(zip(rows, logits.tolist(), strict=True))
        scores.append(np.array([by_row[row] for row in each.rows], dtype=np.float32))
    return scores
