"""Models on a server: the rerank sidecar, or for embeddings another one.

Requests that a server cannot serve yet (it restarts, it is overloaded) are retried as often as requests to the cluster;
a text that it cannot read makes its document a dead letter.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import chain
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from bridge.errors import SidecarError
from bridge.model_servers.client import ModelServer
from bridge.model_servers.shapes import EmbedApi, Role, Score, Term, embed_api, in_order
from bridge.models.artifact import ModelFolder, resolve
from bridge.models.tokenization import CHARACTERS_PER_TOKEN
from bridge.records import Terms
from bridge.settings import IngestSettings
from bridge.text import decode

_TEXTS_AT_ONCE = 32
"""The default limit of text-embeddings-inference."""

_REQUESTS_AT_ONCE = 4
"""Enough to keep a server busy while answers travel."""

_PASSAGES_TO_EXPAND = 8
"""As many as the sidecar expands at once itself."""

_TIMEOUT_S = 120.0

T = TypeVar("T")


def server_of(settings: IngestSettings) -> ModelServer:
    """The server of `ingest.server.url` and the settings beside it."""
    key = settings.server.api_key
    return ModelServer(
        settings.server.url or "",
        api_key=key.get_secret_value() if key else None,
        retries=settings.max_attempts,
        timeout_s=_TIMEOUT_S,
    )


def check_sidecar(server: ModelServer, settings: IngestSettings) -> None:
    """Compares the sidecar's models with those that the settings name.

    Raises:
        ModelError: one of these cannot be found.
        SidecarError: the sidecar runs others, or does not answer.
    """
    info = server.info()
    scorer = settings.filter_model if settings.generator else None
    for setting, name, served in (
        ("sidecar.encoder or sidecar.more_encoders", settings.encoder, info.embedding_model_ids),
        ("sidecar.sparse_encoders", settings.sparse_encoder, info.sparse_model_ids),
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
        """`folder` of the same encoder has the dimension and the prefixes of texts."""
        self._server = server
        self._model = folder.identity if settings.server.api == "sidecar" else None
        self._path = "/embed" if settings.server.api == "sidecar" else ""
        self._api: dict[Role, EmbedApi] = {
            "query": embed_api(settings.server.api, model=settings.server.model, prompt=folder.manifest.query_prefix),
            "passage": embed_api(
                settings.server.api, model=settings.server.model, prompt=folder.manifest.passage_prefix
            ),
        }
        self._executor = ThreadPoolExecutor(_REQUESTS_AT_ONCE, thread_name_prefix="served-encoder")
        self._read = _chars_read(folder)
        self.dimension: int = folder.manifest.dimension or 0

    def encode(self, texts: Sequence[str], role: Role = "query") -> NDArray[np.float32]:
        """Embeds `texts`: float32, (n_texts, dimension), rows of unit length, input order.

        Raises:
            ModelError: the server cannot read a text.
            SidecarError: it gives no answer, or one of another encoder.
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


class ServedSparseEncoder:
    """A sparse encoder on the sidecar. Safe to use from several threads."""

    def __init__(self, server: ModelServer, folder: ModelFolder) -> None:
        self._server = server
        self._read = _chars_read(folder)
        self._model = folder.identity

    def encode(self, texts: Sequence[str], role: Role = "passage") -> list[Terms]:
        """The terms of each text, largest first, input order.

        Raises:
            ModelError: the sidecar cannot read a text.
            SidecarError: it gives no answer, or terms of other texts.
        """
        encoded: list[Terms] = []
        for part in _parts(texts, _TEXTS_AT_ONCE):
            body = {"inputs": [text[: self._read] for text in part], "role": role, "model": self._model}
            rows = self._server.read("/embed_sparse", body, partial(decode, kind=list[list[Term]]))
            if len(rows) != len(part):
                raise SidecarError(
                    f"the model server {self._server.url} gave terms of {len(rows)} texts for {len(part)}"
                )
            encoded += [{term.token: term.value for term in row} for row in rows]
        return encoded


class ServedGenerator:
    """A query generator behind HTTP."""

    def __init__(self, server: ModelServer, folder: ModelFolder) -> None:
        self._server = server
        self._read = _chars_read(folder)

    def generate(self, passages: Sequence[str], *, n_queries: int, max_new_tokens: int, seed: int) -> list[list[str]]:
        """At most `n_queries` queries per passage, likeliest first.

        Raises:
            ModelError: the server cannot read a passage.
            SidecarError: it gives no answer.
        """
        rows_with_text = [row for row, passage in enumerate(passages) if passage.strip()]
        queries: list[list[str]] = [[] for _ in passages]
        for rows in _parts(rows_with_text, _PASSAGES_TO_EXPAND):
            predicted = self._server.read(
                "/expand",
                {
                    "inputs": [passages[row][: self._read] for row in rows],
                    "n_queries": n_queries,
                    "max_new_tokens": max_new_tokens,
                    "seed": seed + rows[0],
                },
                partial(decode, kind=list[list[str]]),
            )
            if len(predicted) != len(rows):
                raise SidecarError(
                    f"the model server {self._server.url} gave queries of {len(predicted)} passages for {len(rows)}"
                )
            for row, its_queries in zip(rows, predicted, strict=True):
                queries[row] = its_queries
        return queries


class ServedScorer:
    """A cross-encoder behind HTTP. Safe to use from several threads."""

    def __init__(self, server: ModelServer, folder: ModelFolder) -> None:
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
        scores = self._server.read("/rerank", body, lambda answer: in_order(decode(answer, list[Score]), len(texts)))
        return np.array(scores, dtype=np.float32)


def _chars_read(folder: ModelFolder) -> int:
    """Characters of a text that the model can read at most: a server limits its requests."""
    return folder.manifest.max_tokens * CHARACTERS_PER_TOKEN


def _parts(items: Sequence[T], n_items: int) -> list[Sequence[T]]:
    return [items[start : start + n_items] for start in range(0, len(items), n_items)]
