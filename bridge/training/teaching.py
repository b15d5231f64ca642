"""What teachers think of any passages of a batch for any of its queries.

Encoders have read every text by itself, so every query of a batch can be taught against every passage of it (in-batch
distillation, Lin et al. 2021, "In-batch negatives for knowledge distillation with tightly-coupled teachers":
https://aclanthology.org/2021.repl4nlp-1.17/). Cross-encoders were asked about each query's own list alone.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from bridge.models.artifact import ModelFolder
from bridge.models.encoder import Encoder
from bridge.training.mining import CandidateSet, Embed
from bridge.training.teachers import TeacherLogits, fitted_weights

UNKNOWN = -np.inf
"""The logit of a passage that no teacher was asked about."""

_SPREAD_OVER = 1000
_SEED = 0


def all_embed(teachers: Sequence[ModelFolder]) -> bool:
    """Whether each of them is an encoder, and so knows any text."""
    return all(teacher.manifest.kind == "encoder" for teacher in teachers)


class Teaching(Protocol):
    """Lists are numbered as in the candidate set, passages as in its pool. `share` of the loss is the teachers'."""

    share: float

    def logits(self, lists: Sequence[int], rows: Sequence[int]) -> NDArray[np.float32]:
        """float32 (n_lists, n_rows): the teachers' logit of each passage for each query, or `UNKNOWN`."""


class ListTeaching:
    """Knows what each list holds."""

    share = 0.4

    def __init__(self, candidates: CandidateSet, logits: TeacherLogits) -> None:
        self._known = [
            dict(zip(found.rows, own, strict=True)) for found, own in zip(candidates.lists, logits, strict=True)
        ]

    def logits(self, lists: Sequence[int], rows: Sequence[int]) -> NDArray[np.float32]:
        return np.array([[self._known[number].get(row, UNKNOWN) for row in rows] for number in lists], dtype=np.float32)


class VectorTeaching:
    """Knows all queries, float16 (n_lists, dimension), and all passages, float16 (n_passages, dimension)."""

    share = 0.8

    def __init__(self, queries: NDArray[np.float16], passages: NDArray[np.float16]) -> None:
        self._queries = queries
        self._passages = passages

    @classmethod
    def of(cls, candidates: CandidateSet, teachers: Sequence[ModelFolder], embed: Embed) -> "VectorTeaching":
        """The ensemble of encoders and of `embed`, each with an equal say.

        Equal, since which of them knows the judged passages best depends on the pairs that there are; how sure they
        are of themselves together is fitted (see `fitted_weights`).

        Raises:
            ModelError: a teacher fails.
        """
        texts = [passage.text for passage in candidates.passages]
        queries = [found.query for found in candidates.lists]
        read = [(embed(queries), embed(texts))]
        for teacher in teachers:
            encoder = Encoder.load(teacher)
            read.append((encoder.encode(queries, "query"), encoder.encode(texts, "passage")))
            encoder.close()
        generator = np.random.default_rng(_SEED)
        some_queries = generator.integers(len(queries), size=min(_SPREAD_OVER, len(queries)))
        some_texts = generator.integers(len(texts), size=min(_SPREAD_OVER, len(texts)))
        spread = np.array([(q[some_queries] @ p[some_texts].T).std(axis=1).mean() for q, p in read]).clip(1e-6)
        cosines = [
            np.stack([p[found.rows] @ q[number] for q, p in read], axis=1)
            for number, found in enumerate(candidates.lists)
        ]
        weights = (fitted_weights(cosines) * spread).mean().clip(1e-6) / spread
        # A sum of weighted cosines is the product of vectors side by side.
        weighted = [q * weight for (q, _), weight in zip(read, weights, strict=True)]
        return cls(_side_by_side(weighted), _side_by_side([p for _, p in read]))

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
