"""A stage of a search that a model server does, asked over HTTP within the time that is left.

Whatever it does (no answer, late, overloaded, nonsense) becomes one exception with a reason that fits into a
header.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import NoReturn, TypeVar

import aiohttp
import msgspec

from bridge import tracing
from bridge.errors import NotTaken, StageFailed
from bridge.model_servers.breaker import CircuitBreaker

_NOT_TAKEN = (400, 404, 422)
_REMEDIES = {
    401: "it wants another API key",
    403: "it wants another API key",
    413: "it takes fewer texts at once, see reranker.max_passages",
    424: "its model failed",
    429: "it has too much to do",
}
_T = TypeVar("_T")


class ModelStage:
    """One endpoint. `stage` begins the reasons of its failures, `span` names its part of a trace. `told_deadline`: it
    is told by when its answer is of use, as the sidecar wants it. `headers` go with every request."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        url: str,
        breaker: CircuitBreaker,
        *,
        stage: str,
        span: str,
        headers: Mapping[str, str],
        told_deadline: bool,
    ) -> None:
        self.url = url
        self._session = session
        self._breaker = breaker
        self._stage = stage
        self._span = span
        self._headers = headers
        self._told_deadline = told_deadline

    async def ask(self, body: object, read: Callable[[bytes], _T], *, deadline: float) -> _T:
        """What `read` makes of the answer; `deadline` is on the event loop's clock.

        Raises:
            StageFailed: `STAGE_unavailable`, `STAGE_slow`, `STAGE_overloaded`, or `STAGE_unusable` where `read`
                raises `msgspec.DecodeError`.
            NotTaken: `STAGE_unavailable`; the server refuses such requests.
        """
        with tracing.span(self._span):
            content = await self._answer(body, deadline)
        try:
            return read(content)
        except msgspec.DecodeError as error:
            self.fail("unusable", f"the answer of {self.url} cannot be read: {error}", error)

    def fail(self, reason: str, detail: str, cause: BaseException | None = None) -> NoReturn:
        """Counts a failure of the server's.

        Raises:
            StageFailed: always; `STAGE_reason`.
        """
        self._breaker.failed()
        raise StageFailed(f"{self._stage}_{reason}", detail) from cause

    def succeeded(self) -> None:
        """An answer could be used."""
        self._breaker.succeeded()

    async def _answer(self, body: object, deadline: float) -> bytes:
        if not self._breaker.allows():
            raise StageFailed(f"{self._stage}_unavailable", f"{self.url} failed repeatedly and is left alone")
        remaining = deadline - asyncio.get_running_loop().time()
        if remaining <= 0:
            # Earlier stages took it all: no fault of the server's.
            raise StageFailed(f"{self._stage}_slow", f"no time of the budget was left for {self.url}")
        headers = {**self._headers, **tracing.outgoing()}
        if self._told_deadline:
            headers["x-request-timeout-ms"] = str(max(1, int(remaining * 1000)))
        try:
            async with (
                asyncio.timeout_at(deadline),
                self._session.post(self.url, json=body, headers=headers, allow_redirects=False) as answer,
            ):
                content = await answer.read()
        except TimeoutError as error:
            self.fail("slow", f"{self.url} did not answer within the budget", error)
        except aiohttp.ClientError as error:
            self.fail("unavailable", f"{self.url} gave no answer: {error}", error)
        if answer.status != 200:
            self._refused(answer.status)
        return content

    def _refused(self, status: int) -> NoReturn:
        remedy = f" ({_REMEDIES[status]})" if status in _REMEDIES else ""
        told = f"{self.url} answered with status {status}{remedy}"
        if status in _NOT_TAKEN:
            self._breaker.failed()
            raise NotTaken(f"{self._stage}_unavailable", told)
        self.fail("overloaded" if status == 429 else "unavailable", told)
