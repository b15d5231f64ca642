"""Asks a model server within the time that is left of a search: the proxy's client, with a circuit breaker.

Whatever goes wrong (no answer, late, overloaded, nonsense) becomes one exception with a reason that fits into a
header.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import NoReturn, TypeVar

import aiohttp
import msgspec

from bridge import tracing
from bridge.errors import NotTaken, StageFailed
from bridge.settings import masked, without_secrets

DEADLINE_HEADER = "x-request-timeout-ms"
"""Tells the sidecar how many milliseconds its answer is worth waiting for."""

MAX_ANSWER_BYTES = 8_000_000
"""An answer holds one embedding, or a score for each of at most some hundred passages: far less."""

_NOT_TAKEN = (400, 404, 422)
_REMEDIES = {
    401: "it wants another API key",
    403: "it wants another API key",
    413: "it takes fewer texts at once, see reranker.max_passages",
    424: "its model failed",
    429: "it has too much to do",
}
_T = TypeVar("_T")


class CircuitBreaker:
    """Leaves a server alone after several failures in a row; then one caller at a time may try it.

    So a dead or drowning server costs searches nothing, and is used again within seconds of its recovery. Call
    `allows` before a request, and `succeeded` or `failed` after it.
    """

    def __init__(self, *, failures: int, reset_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        """`failures` in a row open the breaker for `reset_s`; `clock` gives seconds."""
        self._limit = failures
        self._reset_s = reset_s
        self._clock = clock
        self._failures = 0
        self._open_until: float | None = None

    @property
    def open(self) -> bool:
        """Whether the server is being left alone."""
        return self._open_until is not None

    def allows(self) -> bool:
        """Whether to call now. While open, one caller per `reset_s` is let through to try."""
        if self._open_until is None:
            return True
        now = self._clock()
        if now < self._open_until:
            return False
        self._open_until = now + self._reset_s
        return True

    def succeeded(self) -> None:
        """The server answered as it should."""
        self._failures = 0
        self._open_until = None

    def failed(self) -> None:
        """The server did not answer, or answered nonsense."""
        self._failures += 1
        if self._failures >= self._limit:
            self._open_until = self._clock() + self._reset_s


class OversizedAnswer(Exception):
    """An answer exceeds `MAX_ANSWER_BYTES`."""


async def read_answer(answer: aiohttp.ClientResponse) -> bytes:
    """The body of an answer. An endless one must not fill the memory of the process.

    Raises:
        OversizedAnswer: it is longer than `MAX_ANSWER_BYTES`; its connection is not used again.
    """
    parts, size = [], 0
    async for part in answer.content.iter_any():
        parts.append(part)
        size += len(part)
        if size > MAX_ANSWER_BYTES:
            answer.close()
            raise OversizedAnswer(f"is longer than {MAX_ANSWER_BYTES:,} bytes")
    return b"".join(parts)


class ModelStage:
    """One endpoint of a model server that does one stage of a search.

    Attributes:
        url: its address as messages may show it.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        url: str,
        breaker: CircuitBreaker,
        *,
        stage: str,
        span: str,
        headers: Mapping[str, str],
        send_deadline: bool,
    ) -> None:
        """`stage` begins the reasons of failures; `span` names its part of a trace.

        `headers` go with every request. `send_deadline`: send `DEADLINE_HEADER`, which the sidecar understands.
        """
        self.url = masked(url)
        self._url = url
        self._session = session
        self._breaker = breaker
        self._stage = stage
        self._span = span
        self._headers = headers
        self._send_deadline = send_deadline

    async def ask(self, body: object, read: Callable[[bytes], _T], *, deadline: float) -> _T:
        """Posts `body` and returns what `read` makes of the answer; `deadline` is on the event loop's clock.

        Raises:
            StageFailed: `STAGE_unavailable`, `STAGE_slow`, `STAGE_overloaded`, or `STAGE_unusable` if `read`
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
        """Counts a failure of the server.

        Raises:
            StageFailed: always; `STAGE_reason`.
        """
        self._breaker.failed()
        raise StageFailed(f"{self._stage}_{reason}", detail) from cause

    def succeeded(self) -> None:
        """Counts a usable answer: the breaker closes."""
        self._breaker.succeeded()

    async def _answer(self, body: object, deadline: float) -> bytes:
        if not self._breaker.allows():
            raise StageFailed(f"{self._stage}_unavailable", f"{self.url} failed repeatedly and is left alone")
        remaining = deadline - asyncio.get_running_loop().time()
        if remaining <= 0:
            # Earlier stages took it all: no fault of the server's.
            raise StageFailed(f"{self._stage}_slow", f"no time of the budget was left for {self.url}")
        headers = {**self._headers, **tracing.outgoing()}
        if self._send_deadline:
            headers[DEADLINE_HEADER] = str(max(1, int(remaining * 1000)))
        try:
            async with (
                asyncio.timeout_at(deadline),
                self._session.post(self._url, json=body, headers=headers, allow_redirects=False) as answer,
            ):
                content = await read_answer(answer)
        except TimeoutError as error:
            self.fail("slow", f"{self.url} did not answer within the budget", error)
        except aiohttp.ClientError as error:
            self.fail("unavailable", f"{self.url} gave no answer: {without_secrets(str(error), self._url)}", error)
        except OversizedAnswer as error:
            self.fail("unusable", f"the answer of {self.url} {error}", error)
        if answer.status != 200:
            self._refused(answer.status)
        return content

    def _refused(self, status: int) -> NoReturn:
        remedy = f" ({_REMEDIES[status]})" if status in _REMEDIES else ""
        message = f"{self.url} answered with status {status}{remedy}"
        if status in _NOT_TAKEN:
            self._breaker.failed()
            raise NotTaken(f"{self._stage}_unavailable", message)
        self.fail("overloaded" if status == 429 else "unavailable", message)
