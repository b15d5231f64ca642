"""Embeddings and rerank scores from the sidecar, over HTTP, each within the time that is left.

Whatever the sidecar does (no answer, late, overloaded, nonsense) becomes one exception with a reason
that fits into a header.
"""

import asyncio
import math
from collections.abc import Sequence
from types import TracebackType
from typing import NamedTuple, Self, TypeVar

import aiohttp
import msgspec
from cachetools import LRUCache, TTLCache

from bridge.errors import SettingsError, SidecarError
from bridge.proxy.breaker import CircuitBreaker
from bridge.settings import ProxySettings

_NOT_TAKEN = (400, 404, 422)
_READY_TIMEOUT = aiohttp.ClientTimeout(total=3.0)
_T = TypeVar("_T")


class StageFailed(SidecarError):
    """A stage is left out of this search; `reason` is one word of a bounded set."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class CascadeMissing(StageFailed):
    """The sidecar has no small cross-encoder beside the large one."""

    def __init__(self, detail: str) -> None:
        super().__init__("cascade_unavailable", detail)


class _NotTaken(StageFailed):
    """The sidecar is well, and does not take such a request."""


class _Info(msgspec.Struct):
    embedding_model_id: str | None = None
    embedding_model_ids: list[str] = []

    @property
    def encoders(self) -> list[str]:
        """All encoders that the sidecar told of."""
        return self.embedding_model_ids or ([self.embedding_model_id] if self.embedding_model_id else [])


class CascadeRequest(NamedTuple):
    """How far a cascade goes, and what the search thought of each passage: the choice of those that the large
    model reads is by both, `prior_weight` of it by the search."""

    depth: int
    prior_scores: Sequence[float]
    prior_weight: float


class _Score(msgspec.Struct):
    index: int
    score: float


class Sidecar:
    """The rerank sidecar. Use as an async context manager."""

    def __init__(self, settings: ProxySettings, *, api_key: str | None = None) -> None:
        if not settings.sidecar_url.startswith(("http://", "https://")):
            raise SettingsError(f"proxy.sidecar_url is {settings.sidecar_url}: expected http://HOST:PORT")
        self.url = settings.sidecar_url.rstrip("/")
        # One each: a drowning reranker is no reason to stop embedding queries.
        self._embedder, self._reranker = (
            CircuitBreaker(failures=settings.breaker_failures, reset_s=settings.breaker_reset_s) for _ in range(2)
        )
        self._embeddings: LRUCache[tuple[str, str], list[float]] = LRUCache(settings.cached_embeddings)
        # Another encoder may be there after a restart; nothing tells of it but the sidecar itself.
        self._encoders: TTLCache[str, _Info] = TTLCache(1, settings.profile_ttl_s)
        # One that lacks a small cross-encoder may have been given one by its next start.
        self._cascade_refusal: TTLCache[str, str] = TTLCache(1, settings.profile_ttl_s)
        self._api_key = api_key
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            headers={"Authorization": f"Bearer {self._api_key}"} if self._api_key else None,
            connector=aiohttp.TCPConnector(limit=0),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            json_serialize=lambda value: msgspec.json.encode(value).decode(),
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def embed(self, text: str, *, dimension: int, identity: str, deadline: float) -> list[float]:
        """The query's embedding, of unit length, `dimension` numbers.

        `identity` is the encoder that embedded the index; `deadline` is on the event loop's clock.

        Raises:
            StageFailed: `embedder_unavailable`, `embedder_slow`, `embedder_overloaded`,
                `embedder_unusable` for an answer that is no such embedding, or `encoder_mismatch` where
                the sidecar says that it runs another encoder.
        """
        if (cached := self._embeddings.get((identity, text))) is not None:
            return cached
        told = await self._served_encoders(deadline)
        if told.encoders and identity not in told.encoders:
            raise StageFailed(
                "encoder_mismatch",
                f"the index was embedded by {identity}, the sidecar runs {', '.join(told.encoders)}: start it with "
                f"that encoder, or ingest anew",
            )
        body: dict[str, object] = {"inputs": [text], "role": "query"}
        if told.embedding_model_ids:
            # It may have been given another encoder since it was asked: then it refuses, and vectors do not mix.
            body["model"] = identity
        answer = await self._ask("embedder", self._embedder, "/embed", body, deadline)
        embeddings = self._decoded("embedder", self._embedder, answer, list[list[float]])
        if len(embeddings) != 1 or len(embeddings[0]) != dimension or not all(map(math.isfinite, embeddings[0])):
            self._embedder.failed()
            raise StageFailed(
                "embedder_unusable",
                f"the sidecar's embedding is not one row of {dimension} numbers: does it run {identity}?",
            )
        self._embedder.succeeded()
        self._embeddings[identity, text] = embeddings[0]
        return embeddings[0]

    def check_cascade(self) -> None:
        """Asks nothing of the sidecar, but remembers what it said.

        Raises:
            CascadeMissing: the sidecar said a short while ago that it has no small cross-encoder.
        """
        if (refusal := self._cascade_refusal.get(self.url)) is not None:
            raise CascadeMissing(refusal)

    async def rerank(
        self, query: str, passages: Sequence[str], *, deadline: float, cascade: CascadeRequest | None = None
    ) -> list[float]:
        """The cross-encoder's logits, one per passage, in their order.

        With `cascade` the small cross-encoder reads all passages and the large one only so many of the best: those
        have the highest scores.

        Raises:
            StageFailed: `rerank_unavailable`, `rerank_slow`, `rerank_overloaded`, or `rerank_unusable` for
                an answer that lacks a score or holds a wrong one.
            CascadeMissing: the sidecar has no small cross-encoder.
        """
        body: dict[str, object] = {"query": query, "texts": list(passages), "raw_scores": True, "truncate": True}
        if cascade is not None:
            body |= {
                "cascade_depth": cascade.depth,
                "prior_scores": list(cascade.prior_scores),
                "prior_weight": cascade.prior_weight,
            }
        try:
            answer = await self._ask("rerank", self._reranker, "/rerank", body, deadline)
        except _NotTaken as refusal:
            if cascade is None:
                raise
            self._cascade_refusal[self.url] = told = f"the sidecar at {self.url} takes no cascade_depth: {refusal}"
            raise CascadeMissing(told) from refusal
        scores = self._decoded("rerank", self._reranker, answer, list[_Score])
        logits = {score.index: score.score for score in scores if math.isfinite(score.score)}
        if len(scores) != len(passages) or logits.keys() != set(range(len(passages))):
            self._reranker.failed()
            raise StageFailed(
                "rerank_unusable", f"the sidecar gave {len(logits)} usable scores for {len(passages)} passages"
            )
        self._reranker.succeeded()
        return [logits[i] for i in range(len(passages))]

    async def _served_encoders(self, deadline: float) -> _Info:
        """The sidecar's encoders; empty where it does not tell (other servers do not)."""
        if (known := self._encoders.get(self.url)) is not None:
            return known
        if self._session is None:
            raise RuntimeError("Sidecar is used outside its context")
        try:
            async with asyncio.timeout_at(deadline), self._session.get(f"{self.url}/info") as answer:
                told = msgspec.json.decode(await answer.read(), type=_Info) if answer.status == 200 else _Info()
        except (aiohttp.ClientError, TimeoutError, msgspec.DecodeError):
            # Whether it can embed is found out by asking it to.
            return _Info()
        self._encoders[self.url] = told
        return told

    async def ready(self) -> bool:
        """Whether the sidecar says that it can serve."""
        if self._session is None:
            return False
        try:
            async with self._session.get(f"{self.url}/ready", timeout=_READY_TIMEOUT) as answer:
                return answer.status == 200
        except (aiohttp.ClientError, TimeoutError):
            return False

    async def _ask(self, stage: str, breaker: CircuitBreaker, path: str, body: object, deadline: float) -> bytes:
        if self._session is None:
            raise RuntimeError("Sidecar is used outside its context")
        if not breaker.allows():
            raise StageFailed(f"{stage}_unavailable", f"the sidecar at {self.url} failed repeatedly and is left alone")
        remaining = deadline - asyncio.get_running_loop().time()
        if remaining <= 0:
            # Earlier stages took it all: no fault of the sidecar's.
            raise StageFailed(f"{stage}_slow", f"no time of the budget was left for {path}")
        headers = {"x-request-timeout-ms": str(max(1, int(remaining * 1000)))}
        try:
            async with (
                asyncio.timeout_at(deadline),
                self._session.post(self.url + path, json=body, headers=headers, allow_redirects=False) as answer,
            ):
                content = await answer.read()
        except TimeoutError as error:
            breaker.failed()
            raise StageFailed(f"{stage}_slow", f"the sidecar did not answer {path} within the budget") from error
        except aiohttp.ClientError as error:
            breaker.failed()
            raise StageFailed(f"{stage}_unavailable", f"the sidecar at {self.url} gave no answer: {error}") from error
        if answer.status != 200:
            breaker.failed()
            reason = "overloaded" if answer.status == 429 else "unavailable"
            failure = _NotTaken if answer.status in _NOT_TAKEN else StageFailed
            raise failure(f"{stage}_{reason}", f"the sidecar answered {path} with status {answer.status}")
        return content

    @staticmethod
    def _decoded(stage: str, breaker: CircuitBreaker, answer: bytes, shape: type[_T]) -> _T:
        try:
            return msgspec.json.decode(answer, type=shape)
        except msgspec.DecodeError as error:
            breaker.failed()
            raise StageFailed(f"{stage}_unusable", f"the sidecar's answer cannot be read: {error}") from error
