"""Asks a model server over HTTP for callers that can wait: commands and ingest, which repeat what it cannot do yet."""

from collections.abc import Callable, Sequence
from functools import partial
from types import TracebackType
from typing import Any, NoReturn, Self, TypeVar

import msgspec
import urllib3

from bridge.errors import ModelError, SidecarError, SidecarUnreachable
from bridge.model_servers.shapes import Score, in_order, query_terms, terms_body
from bridge.profile import SparseSettings
from bridge.records import Terms
from bridge.settings import masked, without_secrets
from bridge.text import decode

MAX_ANSWER_BYTES = 64_000_000
"""The embeddings of a batch of texts are a few megabytes: whatever sends more is broken."""

_READ_BYTES = 1 << 16
_CONNECT_TIMEOUT_S = 10.0
_LONGEST_PAUSE_S = 10.0
_RETRIED = (429, 502, 503, 504)
_UNREADABLE = (400, 413, 422)
_POOL_CONNECTIONS = 4
_SIDECAR_TIMEOUT_S = 120.0

T = TypeVar("T")


class SidecarInfo(msgspec.Struct, frozen=True):
    """What a sidecar serves, each model as `name@digest`."""

    embedding_model_ids: list[str]
    rerank_model_ids: list[str] = []
    cascade_model_id: str | None = None
    generator_model_id: str | None = None
    sparse_model_ids: list[str] = []


class ModelServer:
    """One address. Safe to use from several threads.

    Attributes:
        url: the address as messages may show it.
    """

    def __init__(self, url: str, *, api_key: str | None = None, retries: int = 0, timeout_s: float) -> None:
        """`retries`: attempts after the first one, for requests that the server cannot serve yet."""
        self._url = url.rstrip("/")
        self.url = masked(self._url)
        self._headers = {"Content-Type": "application/json"}
        if api_key is not None:
            self._headers["Authorization"] = f"Bearer {api_key}"
        # urllib3 ignores the environment's proxies: they are not meant for a server of ours.
        self._pool = urllib3.PoolManager(
            maxsize=_POOL_CONNECTIONS,
            timeout=urllib3.Timeout(connect=_CONNECT_TIMEOUT_S, read=timeout_s),
            retries=urllib3.Retry(
                retries,
                redirect=0,
                status_forcelist=_RETRIED,
                allowed_methods=None,  # the same texts give the same answer
                backoff_factor=0.25,
                backoff_max=_LONGEST_PAUSE_S,
                backoff_jitter=0.25,
                raise_on_status=False,
            ),
        )

    def ask(self, path: str, body: object | None = None) -> bytes:
        """The answer to a request: GET if `body` is None, else POST; `path` is added to the address.

        Raises:
            ModelError: the server cannot read these texts.
            SidecarUnreachable: it gives no answer, or wants another key.
            SidecarError: its answer is longer than `MAX_ANSWER_BYTES`.
        """
        url, shown = self._url + path, self.url + path
        try:
            answer = self._pool.request(
                "GET" if body is None else "POST",
                url,
                body=None if body is None else msgspec.json.encode(body),
                headers=self._headers,
                preload_content=False,
            )
            content = _read(shown, answer)
        except urllib3.exceptions.HTTPError as error:
            cause = without_secrets(str(error), url)
            raise SidecarUnreachable(f"the model server {shown} gives no answer: {cause}; start it") from error
        if answer.status != 200:
            _refuse(shown, answer.status, content)
        return content

    def read(self, path: str, body: object, read: Callable[[bytes], T]) -> T:
        """What `read` makes of the answer to a request.

        Raises:
            ModelError: the server cannot read these texts.
            SidecarError: it gives no answer, or one that makes `read` raise `msgspec.DecodeError`.
        """
        try:
            return read(self.ask(path, body))
        except msgspec.DecodeError as error:
            raise SidecarError(f"the answer of {self.url}{path} cannot be read: {error}") from error

    def info(self) -> SidecarInfo:
        """What the sidecar serves.

        Raises:
            SidecarError: it gives no answer, or is no sidecar.
        """
        try:
            return decode(self.ask("/info"), SidecarInfo)
        except (msgspec.DecodeError, ModelError) as error:
            raise SidecarError(f"what answers at {self.url} is no sidecar of ours: {error}") from error

    def close(self) -> None:
        """Ends its connections."""
        self._pool.clear()


class SidecarClient:
    """Embeds and scores with the rerank sidecar, one request at a time. Use as a context manager.

    Attributes:
        cascade_model: the small cross-encoder's name there; None if it has none.
    """

    def __init__(self, url: str, *, api_key: str | None = None) -> None:
        """Connects, and reads what the sidecar serves.

        Raises:
            SidecarError: it does not answer.
        """
        self._server = ModelServer(url, api_key=api_key, timeout_s=_SIDECAR_TIMEOUT_S)
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
        rows = self._server.read("/embed", body, partial(decode, kind=list[list[float]]))
        if len(rows) != 1:
            raise SidecarError(f"the model server {self._server.url} gave {len(rows)} embeddings for one text")
        return rows[0]

    def weigh(self, query: str, sparse: SparseSettings) -> Terms:
        """The query's weighted terms."""
        return self._server.read("/embed_sparse", terms_body(query, sparse), query_terms)

    def rerank(self, query: str, passages: Sequence[str], *, model: str | None) -> list[float]:
        """Logits, input order; `model` None is the large cross-encoder."""
        body: dict[str, Any] = {"query": query, "texts": list(passages), "raw_scores": True}
        if model is not None:
            body["model"] = model
        return self._server.read("/rerank", body, lambda answer: in_order(decode(answer, list[Score]), len(passages)))


def _read(url: str, answer: urllib3.BaseHTTPResponse) -> bytes:
    content = bytearray()
    while part := answer.read(_READ_BYTES):
        content += part
        if len(content) > MAX_ANSWER_BYTES:
            answer.close()
            raise SidecarError(f"the answer of the model server {url} is longer than {MAX_ANSWER_BYTES:,} bytes")
    answer.release_conn()
    return bytes(content)


def _refuse(url: str, status: int, content: bytes) -> NoReturn:
    text = content[:300].decode(errors="replace")
    message = f"the model server {url} answered with status {status}: {text}"
    if status in _UNREADABLE:
        raise ModelError(message)
    raise SidecarUnreachable(f"{message}; check the address and the API key, and read its log")
