"""Ranks documents in memory to compare models: the search flow without a cluster or a sidecar.

Vectors are compared exactly. The caller supplies the lexical ranking, such as BM25's.
"""

import asyncio
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from bridge.cluster.dialects import sign_code
from bridge.errors import CascadeMissing
from bridge.models.protocols import Encoder, Scorer
from bridge.profile import IndexProfile, Stage
from bridge.records import Hit, Key, Passage, RankedHit
from bridge.search.cascade import CascadeRequest
from bridge.search.flow import Backend, rank
from bridge.search.json_tree import Json
from bridge.search.request import words_request


@dataclass(frozen=True, slots=True)
class Vectors:
    """Embeddings of one encoder, rows of unit length: `passages` of all documents, and `queries`, in corpus order."""

    passages: NDArray[np.float32]
    queries: NDArray[np.float32]


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
        self._profile = msgspec.structs.replace(profile, generator=None)
        self.code_field = profile.code_field

    def embed(self, encoder: Encoder) -> Vectors:
        """Embeds all passages and queries.

        Raises:
            ModelError: the encoder failed.
        """
        queries = list(self._queries.values())
        return Vectors(encoder.encode(self.passages, "passage"), encoder.encode(queries, "query"))

    def rank(self, stage: Stage, vectors: Vectors, scorer: Scorer | None = None) -> dict[str, Sequence[RankedHit]]:
        """Hits by query_id, best first, of a search that stops at `stage`; reranking needs a `scorer`.

        Raises:
            ModelError: the cross-encoder failed.
        """
        return asyncio.run(self._rank(stage, vectors, scorer))

    async def _rank(self, stage: Stage, vectors: Vectors, scorer: Scorer | None) -> dict[str, Sequence[RankedHit]]:
        rankings: dict[str, Sequence[RankedHit]] = {}
        profile = msgspec.structs.replace(self._profile, dimension=vectors.queries.shape[1])
        for row, (query_id, text) in enumerate(self._queries.items()):
            backend = MemoryBackend(self, self.lexical[query_id], vectors, vectors.queries[row], scorer)
            request = words_request(text, self._profile.text_fields)
            rankings[query_id] = (await rank(request, profile, stage, backend)).hits
        return rankings


@dataclass(frozen=True, slots=True)
class MemoryBackend(Backend):
    """Backend for one query of a corpus; `query` is its embedding."""

    corpus: Corpus
    lexical: Sequence[Hit]
    vectors: Vectors
    query: NDArray[np.float32]
    scorer: Scorer | None = None

    async def embed(self, text: str) -> Sequence[float]:
        return list(map(float, self.query))

    async def search(self, bodies: Mapping[str, Json]) -> Mapping[str, Sequence[Hit]]:
        found = {
            leg: self._nearest(body["size"]) if leg == "vector" else self.lexical[: body["size"]]
            for leg, body in bodies.items()
        }
        name = self.corpus.code_field
        return {
            leg: self._coded(hits) if name in bodies[leg].get("docvalue_fields", ()) else hits
            for leg, hits in found.items()
        }

    def _coded(self, hits: Sequence[Hit]) -> list[Hit]:
        """The hits with their codes as a cluster gives them."""
        embeddings, spans, name = self.vectors.passages, self.corpus.spans, self.corpus.code_field
        codes = [b64encode(sign_code(embeddings[spans[hit.key]])).decode() for hit in hits]
        return [
            msgspec.structs.replace(hit, fields={**hit.fields, name: [code]})
            for hit, code in zip(hits, codes, strict=True)
        ]

    def _nearest(self, n_documents: int) -> list[Hit]:
        """A document is as near as its nearest passage."""
        cosines = np.maximum.reduceat(self.vectors.passages @ self.query, self.corpus.starts)
        best = np.argsort(-cosines, kind="stable")[:n_documents].tolist()
        keys = self.corpus.keys
        return [Hit(keys[row][0], keys[row][1], float(cosines[row])) for row in best]

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
