"""Models that a server runs in ingest's place: the rerank sidecar, or for embeddings another one.

What a server cannot do just now (it starts again, it has too much to do) is asked again, as patiently as the cluster
is; what it cannot read is the document's fault and ends as a dead letter.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from typing import TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from bridge.errors import SidecarError
from bridge.model_servers.client import ModelServer
from bridge.model_servers.shapes import EmbedApi, Role, Score, embed_api
from bridge.models.artifact import ModelFolder, resolve
from bridge.models.tokenization import CHARACTERS_PER_TOKEN
from bridge.settings import IngestSettings

_TEXTS_AT_ONCE = 32
"""As many as text-embeddings-inference takes unless it is told otherwise."""

_REQUESTS_AT_ONCE = 4
"""Keep a server busy while answers travel."""

_PASSAGES_TO_EXPAND = 8
"""The sidecar's own share of a request for queries."""

_TIMEOUT_S = 120.0

_QUERIES = msgspec.json.Decoder(list[list[str]])
_SCORES = msgspec.json.Decoder(list[Score])

T = TypeVar("T")


def server_of(settings: IngestSettings) -> ModelServer:
    """The server that `ingest.server_url` and its neighbours name."""
    key = settings.server_api_key
    return ModelServer(
        settings.server_url or "",
        api_key=key.get_secret_value() if key else None,
        retries=settings.max_attempts,
        timeout_s=_TIMEOUT_S,
    )


def check_sidecar(server: ModelServer, settings: IngestSettings) -> None:
    """Compares the sidecar's models with those that the settings name.

    Raises:
        ModelError: one of these cannot be found.
        SidecarError: it runs others, or does not answer.
    """
    info = server.info()
    scorer = settings.filter_model if settings.generator else None
    for setting, name, served in (
        ("sidecar.encoder or sidecar.more_encoders", settings.encoder, info.embedding_model_ids),
        ("sidecar.generator", settings.generator, [info.generator_model_id]),
        ("sidecar.rerank_model or sidecar.more_rerank_models", scorer, info.rerank_model_ids),
    ):
        if name and (wanted := resolve(name).identity) not in served:
            running = ", ".join(filter(None, served)) or "none"
            raise SidecarError(
                f"the sidecar at {server.url} does not run {wanted}, but {running}: give it that model ({setting}), "
                f"or name another one in the settings of ingest"
            )


class ServedEncoder:
    """An encoder behind HTTP. Safe to use from several threads."""

    def __init__(self, server: ModelServer, folder: ModelFolder, settings: IngestSettings) -> None:
        """`folder` is that of the same encoder: it says the dimension, and what passages begin with."""
        self._server = server
        self._model = folder.identity if settings.server_api == "sidecar" else None
        self._path = "/embed" if settings.server_api == "sidecar" else ""
        self._api: dict[Role, EmbedApi] = {
            "query": embed_api(settings.server_api, model=settings.server_model, prompt=folder.manifest.query_prefix),
            "passage": embed_api(
                settings.server_api, model=settings.server_model, prompt=folder.manifest.passage_prefix
            ),
        }
        self._executor = ThreadPoolExecutor(_REQUESTS_AT_ONCE, thread_name_prefix="served-encoder")
        self._read = _chars_read(folder)
        self.dimension: int = folder.manifest.dimension or 0

    def encode(self, texts: Sequence[str], role: Role = "query") -> NDArray[np.float32]:
        """Embeds `texts`: float32, (n_texts, dimension), rows of unit length, input order.

        Raises:
            ModelError: the server cannot read a text, or its answer is none.
            SidecarError: it gives no answer.
        """
        beginnings = [text[: self._read] for text in texts]
        parts = self._executor.map(lambda part: self._encode(part, role), _parts(beginnings, _TEXTS_AT_ONCE))
        return np.array(list(chain.from_iterable(parts)), dtype=np.float32).reshape(len(texts), self.dimension)

    def _encode(self, texts: Sequence[str], role: Role) -> list[list[float]]:
        api = self._api[role]
        rows = self._server.read(self._path, api.body(texts, role, model=self._model), api.embeddings)
        if len(rows) != len(texts) or any(len(row) != self.dimension for row in rows):
            raise SidecarError(
                f"the model server {self._server.url} gave {len(rows)} embeddings of {len(rows[0]) if rows else 0} "
                f"numbers for {len(texts)} texts, expected {self.dimension} numbers: it runs another encoder"
            )
        return rows


class ServedGenerator:
    """A query generator behind HTTP."""

    def __init__(self, server: ModelServer, folder: ModelFolder) -> None:
        """`folder` is that of the same generator."""
        self._server = server
        self._read = _chars_read(folder)

    def generate(self, passages: Sequence[str], *, n_queries: int, max_new_tokens: int, seed: int) -> list[list[str]]:
        """At most `n_queries` queries per passage, likeliest first.

        Raises:
            ModelError: the server cannot read a passage.
            SidecarError: it gives no answer.
        """
        asked = [row for row, passage in enumerate(passages) if passage.strip()]
        queries: list[list[str]] = [[] for _ in passages]
        for rows in _parts(asked, _PASSAGES_TO_EXPAND):
            predicted = self._server.read(
                "/expand",
                {
                    "inputs": [passages[row][: self._read] for row in rows],
                    "n_queries": n_queries,
                    "max_new_tokens": max_new_tokens,
                    "seed": seed + rows[0],
                },
                _QUERIES.decode,
            )
            for row, given in zip(rows, predicted, strict=True):
                queries[row] = given
        return queries


class ServedScorer:
    """A cross-encoder behind HTTP. Safe to use from several threads."""

    def __init__(self, server: ModelServer, folder: ModelFolder) -> None:
        """`folder` is that of the same cross-encoder."""
        self._server = server
        self._read = _chars_read(folder)
        self._model = folder.identity

    def score(self, query: str, passages: Sequence[str]) -> NDArray[np.float32]:
        """Raw logits: float32, (n_passages,), input order.

        Raises:
            ModelError: the server cannot read a text.
            SidecarError: it gives no answer.
        """
        texts = [passage[: self._read] for passage in passages]
        body = {"query": query, "texts": texts, "raw_scores": True, "model": self._model}
        scores = np.zeros(len(passages), dtype=np.float32)
        for scored in self._server.read("/rerank", body, _SCORES.decode):
            scores[scored.index] = scored.score
        return scores


def _chars_read(folder: ModelFolder) -> int:
    """As much of a text as the model's own process would look at: a server bounds what it is sent."""
    return folder.manifest.max_tokens * CHARACTERS_PER_TOKEN


def _parts(items: Sequence[T], n_items: int) -> list[Sequence[T]]:
    return [items[start : start + n_items] for start in range(0, len(items), n_items)]
