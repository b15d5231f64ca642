"""The rerank sidecar, asked directly: embeddings and raw scores by model, one request at a time."""

from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

import msgspec

from bridge.model_servers.client import ModelServer
from bridge.model_servers.shapes import Score

_TIMEOUT_S = 120.0
_EMBEDDINGS = msgspec.json.Decoder(list[list[float]])
_SCORES = msgspec.json.Decoder(list[Score])


class SidecarClient:
    """A client of the sidecar at `url`. Use as a context manager.

    Attributes:
        cascade_model: the small cross-encoder's name there; None where it has none.
    """

    def __init__(self, url: str, *, api_key: str | None = None) -> None:
        """Asks the sidecar what it is.

        Raises:
            SidecarError: it does not answer.
        """
        self._server = ModelServer(url, api_key=api_key, answer_within_s=_TIMEOUT_S)
        self.cascade_model = self._server.info().cascade_model_id

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()

    def embed(self, query: str, *, model: str | None = None) -> list[float]:
        """The query's embedding, of unit length, by the encoder `model` (`name@digest`); None is the first one."""
        body = {"inputs": [query], "role": "query", **({"model": model} if model is not None else {})}
        [embedding] = self._server.read("/embed", body, _EMBEDDINGS.decode)
        return embedding

    def rerank(self, query: str, passages: Sequence[str], *, model: str | None) -> list[float]:
        """Logits, input order; `model` None is the large cross-encoder."""
        body: dict[str, Any] = {"query": query, "texts": list(passages), "raw_scores": True}
        if model is not None:
            body["model"] = model
        answer = self._server.read("/rerank", body, _SCORES.decode)
        scores = {entry.index: entry.score for entry in answer}
        return [scores[index] for index in range(len(passages))]
