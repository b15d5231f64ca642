"""What model servers want to be sent, and what they answer: the sidecar's shape, and those of others in its place.

- TEI (text-embeddings-inference): `/rerank` with `texts`, `/embed` with `inputs`. The sidecar's own shapes are
  these, and more: cascades, and embeddings by role. `/embed_sparse` names the terms, too.
- Cohere and Jina: `/v2/rerank` or `/v1/rerank` with `documents`; scores are probabilities.
- OpenAI: `/v1/embeddings` with `input`.

Pure; `bridge.proxy.model_stage` and `ingest.served_models` send. What cannot be read raises `msgspec.DecodeError`.
"""

import math
from collections.abc import Sequence
from typing import Annotated, Literal, Protocol

import msgspec

from bridge.profile import SparseSettings
from bridge.records import Terms
from bridge.search.cascade import CascadeRequest
from bridge.settings import RerankerSettings
from bridge.text import decode

_LEAST_PROBABILITY = 1e-6
"""Nearer to 0 or to 1 a probability's logit says nothing more."""


class Score(msgspec.Struct):
    """A passage's logit; `index` is its place in the request."""

    index: int
    score: float


class Term(msgspec.Struct):
    """A weighted term of a text; `index` is its number in the model's vocabulary."""

    index: int
    value: Annotated[float, msgspec.Meta(gt=0, le=1_000_000)]
    token: Annotated[str, msgspec.Meta(pattern=r"^[^.]+$")]


def in_order(scores: Sequence[Score], n_passages: int) -> list[float]:
    """The logits of an answer in the order of the passages.

    Raises:
        msgspec.ValidationError: a passage has no score or two.
    """
    logits = {score.index: score.score for score in scores}
    if len(scores) != n_passages or logits.keys() != set(range(n_passages)):
        raise msgspec.ValidationError(f"it has {len(logits)} usable scores for {n_passages} passages")
    return [logits[place] for place in range(n_passages)]


def terms_body(query: str, sparse: SparseSettings) -> dict[str, object]:
    """The sidecar's request for the weighted terms of a query, in TEI's shape and with what the index's profile says of
    queries."""
    return {"inputs": [query], "role": "query", "model": sparse.encoder.identity, "queries": sparse.queries}


def query_terms(answer: bytes) -> Terms:
    """The terms in an answer to `terms_body`, the largest first; empty if the query has none.

    Raises:
        msgspec.DecodeError: it is no answer for one text.
    """
    rows = decode(answer, list[list[Term]])
    if len(rows) != 1:
        raise msgspec.ValidationError(f"it has {len(rows)} lists of terms for one text")
    return {term.token: term.value for term in rows[0]}


class RerankApi(Protocol):
    """One shape of reranking. `cascades`: whether it knows `CascadeRequest`."""

    cascades: bool

    def body(self, query: str, passages: Sequence[str], cascade: CascadeRequest | None) -> dict[str, object]:
        """The request."""

    def scores(self, answer: bytes) -> list[Score]:
        """The logits in an answer, in any order."""


Role = Literal["query", "passage"]


class EmbedApi(Protocol):
    """One shape of embedding."""

    def body(self, texts: Sequence[str], role: Role, *, model: str | None) -> dict[str, object]:
        """The request; `model` is the index's encoder, if the server may have several."""

    def embeddings(self, answer: bytes) -> list[list[float]]:
        """The embeddings in an answer; a sound answer has one for each text."""


def rerank_api(settings: RerankerSettings) -> RerankApi:
    """The shape that the settings name."""
    if settings.api == "cohere":
        return _Documents(settings.model or "")
    return _Texts(cascades=settings.api == "sidecar")


def embed_api(api: Literal["sidecar", "tei", "openai"], *, model: str | None, prompt: str | None) -> EmbedApi:
    """The shape of that name. `model` is the server's name for its encoder, `prompt` what this wants before texts of
    the one role in use: the sidecar knows both."""
    match api:
        case "sidecar":
            return _ByRole()
        case "tei":
            return _Inputs(prompt or "")
        case "openai":
            return _OpenAI(model or "", prompt or "")


class _Texts:
    """TEI's shape, and the sidecar's."""

    def __init__(self, *, cascades: bool) -> None:
        self.cascades = cascades

    def body(self, query: str, passages: Sequence[str], cascade: CascadeRequest | None) -> dict[str, object]:
        body: dict[str, object] = {"query": query, "texts": list(passages), "raw_scores": True, "truncate": True}
        if cascade is not None:
            body |= {
                "cascade_depth": cascade.depth,
                "prior_scores": list(cascade.prior_scores),
                "prior_weight": cascade.prior_weight,
            }
        return body

    def scores(self, answer: bytes) -> list[Score]:
        return decode(answer, list[Score])


class _Relevance(msgspec.Struct):
    index: int
    relevance_score: float


class _Results(msgspec.Struct):
    results: list[_Relevance]


class _Documents:
    """Cohere's shape, and Jina's."""

    cascades = False

    def __init__(self, model: str) -> None:
        self._model = model

    def body(self, query: str, passages: Sequence[str], cascade: CascadeRequest | None) -> dict[str, object]:
        return {"model": self._model, "query": query, "documents": list(passages), "top_n": len(passages)}

    def scores(self, answer: bytes) -> list[Score]:
        results = decode(answer, _Results).results
        probabilities = all(0 <= result.relevance_score <= 1 for result in results)
        return [
            Score(result.index, _logit(result.relevance_score) if probabilities else result.relevance_score)
            for result in results
        ]


def _logit(probability: float) -> float:
    """The inverse of the logistic function, within what `_LEAST_PROBABILITY` leaves."""
    within = min(max(probability, _LEAST_PROBABILITY), 1 - _LEAST_PROBABILITY)
    return math.log(within / (1 - within))


class _ByRole:
    """The sidecar's shape: it knows what its encoder wants before texts."""

    def body(self, texts: Sequence[str], role: Role, *, model: str | None) -> dict[str, object]:
        request: dict[str, object] = {"inputs": list(texts), "role": role}
        return request if model is None else request | {"model": model}

    def embeddings(self, answer: bytes) -> list[list[float]]:
        return decode(answer, list[list[float]])


class _Inputs:
    """TEI's shape."""

    def __init__(self, prompt: str) -> None:
        self._prompt = prompt

    def body(self, texts: Sequence[str], role: Role, *, model: str | None) -> dict[str, object]:
        return {"inputs": [self._prompt + text for text in texts], "normalize": True, "truncate": True}

    def embeddings(self, answer: bytes) -> list[list[float]]:
        return [_of_unit_length(row) for row in decode(answer, list[list[float]])]


class _OpenAIRow(msgspec.Struct):
    embedding: list[float]
    index: int = 0


class _OpenAIRows(msgspec.Struct):
    data: list[_OpenAIRow]


class _OpenAI:
    """OpenAI's shape."""

    def __init__(self, model: str, prompt: str) -> None:
        self._model = model
        self._prompt = prompt

    def body(self, texts: Sequence[str], role: Role, *, model: str | None) -> dict[str, object]:
        return {"model": self._model, "input": [self._prompt + text for text in texts], "encoding_format": "float"}

    def embeddings(self, answer: bytes) -> list[list[float]]:
        rows = decode(answer, _OpenAIRows).data
        # Some servers of this shape leave the place out, or say 0 of every row: theirs is the order of the texts.
        if any(row.index for row in rows):
            rows = sorted(rows, key=lambda row: row.index)
            if [row.index for row in rows] != list(range(len(rows))):
                raise msgspec.ValidationError("its rows name a place in the request twice, or leave one out")
        return [_of_unit_length(row.embedding) for row in rows]


def _of_unit_length(row: list[float]) -> list[float]:
    """Indices hold unit vectors; not every server gives them."""
    length = math.hypot(*row)  # whose squares do not overflow
    return [x / length for x in row] if length > 0 else row
