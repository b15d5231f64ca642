"""A model server, asked over HTTP by what may wait: commands and ingest. What it cannot do just now (it starts
again, it has too much to do) is asked again."""

from collections.abc import Callable
from typing import NoReturn, TypeVar

import msgspec
import urllib3

from bridge.errors import ModelError, SidecarError, SidecarUnreachable

_CONNECT_WITHIN_S = 10.0
_LONGEST_PAUSE_S = 10.0
_FOR_A_WHILE = (429, 502, 503, 504)
_NOT_TO_BE_READ = (400, 413, 422)
_KEEPS_CONNECTIONS = 4

T = TypeVar("T")


class SidecarInfo(msgspec.Struct, frozen=True):
    """What a sidecar serves, each model as `name@digest`."""

    embedding_model_ids: list[str]
    rerank_model_ids: list[str] = []
    cascade_model_id: str | None = None
    generator_model_id: str | None = None


class ModelServer:
    """One address. Safe to use from several threads."""

    def __init__(self, url: str, *, api_key: str | None = None, attempts: int = 0, answer_within_s: float) -> None:
        """`attempts`: how many more, beyond the first, for one request."""
        self.url = url.rstrip("/")
        self._headers = {"Content-Type": "application/json"}
        if api_key is not None:
            self._headers["Authorization"] = f"Bearer {api_key}"
        # Whatever proxies the environment names are not for a server of ours: urllib3 asks for none.
        self._pool = urllib3.PoolManager(
            maxsize=_KEEPS_CONNECTIONS,
            timeout=urllib3.Timeout(connect=_CONNECT_WITHIN_S, read=answer_within_s),
            retries=urllib3.Retry(
                attempts,
                redirect=0,
                status_forcelist=_FOR_A_WHILE,
                allowed_methods=None,  # the same texts give the same answer
                backoff_factor=0.25,
                backoff_max=_LONGEST_PAUSE_S,
                backoff_jitter=0.25,
                raise_on_status=False,
            ),
        )

    def ask(self, path: str, body: object | None = None) -> bytes:
        """The answer to a request; `path` is added to the address.

        Raises:
            ModelError: the server cannot read these texts.
            SidecarUnreachable: it gives no answer, or wants another key.
        """
        url = self.url + path
        try:
            answer = self._pool.request(
                "GET" if body is None else "POST",
                url,
                body=None if body is None else msgspec.json.encode(body),
                headers=self._headers,
            )
        except urllib3.exceptions.HTTPError as error:
            raise SidecarUnreachable(f"the model server {url} gives no answer: {error}; start it") from error
        if answer.status != 200:
            _refuse(url, answer)
        return answer.data

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
            return msgspec.json.decode(self.ask("/info"), type=SidecarInfo)
        except (msgspec.DecodeError, ModelError) as error:
            raise SidecarError(f"what answers at {self.url} is no sidecar of ours: {error}") from error

    def close(self) -> None:
        """Ends its connections."""
        self._pool.clear()


def _refuse(url: str, answer: urllib3.BaseHTTPResponse) -> NoReturn:
    said = answer.data[:300].decode(errors="replace")
    told = f"the model server {url} answered with status {answer.status}: {said}"
    if answer.status in _NOT_TO_BE_READ:
        raise ModelError(told)
    raise SidecarUnreachable(f"{told}; see whether address and API key are right, and what its log says")
