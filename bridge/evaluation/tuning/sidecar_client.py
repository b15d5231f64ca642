"""The rerank sidecar, asked directly: embeddings and raw scores by model, one request at a time."""

from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

import requests

from bridge.errors import SidecarError

_TIMEOUT_S = 120.0


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
        self._url = url
        self._session = requests.Session()
        # Whatever proxies and passwords the environment names are not for our own sidecar.
        self._session.trust_env = False
        if api_key is not None:
            self._session.headers["Authorization"] = f"Bearer {api_key}"
        self.cascade_model: str | None = self._sent("GET", "/info", None).get("cascade_model_id")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._session.close()

    def embed(self, query: str, *, model: str | None = None) -> list[float]:
        """The query's embedding, of unit length, by the encoder `model` (`name@digest`); None is the first one."""
        body = {"inputs": [query], "role": "query", **({"model": model} if model is not None else {})}
        [embedding] = self._sent("POST", "/embed", body)
        return [float(value) for value in embedding]

    def rerank(self, query: str, passages: Sequence[str], *, model: str | None) -> list[float]:
        """Logits, input order; `model` None is the large cross-encoder."""
        body: dict[str, Any] = {"query": query, "texts": list(passages), "raw_scores": True}
        if model is not None:
            body["model"] = model
        scores = {entry["index"]: float(entry["score"]) for entry in self._sent("POST", "/rerank", body)}
        return [scores[index] for index in range(len(passages))]

    def _sent(self, method: str, path: str, body: dict[str, Any] | None) -> Any:
        try:
            answer = self._session.request(method, self._url + path, json=body, timeout=_TIMEOUT_S)
        except requests.RequestException as error:
            raise SidecarError(f"the sidecar at {self._url} gave no answer to {path}: {error}") from error
        if answer.status_code != 200:
            raise SidecarError(f"the sidecar answered {path} with status {answer.status_code}: {answer.text[:300]}")
        return answer.json()
