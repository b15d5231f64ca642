"""What models say of queries: embeddings, weighted terms and rerank scores, from the sidecar, or embeddings and scores
from other model servers in its place.

Each answer must come within the time that is left of a search. Whatever goes wrong (no answer, late, overloaded,
nonsense) becomes one exception with a reason that fits into a header.
"""

import asyncio
import math
import sys
import time
from array import array
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager
from itertools import accumulate, islice
from types import TracebackType
from typing import Generic, NoReturn, Self, TypeAlias, TypeVar

import aiohttp
import msgspec
from cachetools import LRUCache, TTLCache
from pydantic import SecretStr

from bridge import tracing
from bridge.cluster.dialects import MAX_QUERY_TERMS
from bridge.errors import CascadeMissing, NotTaken, StageFailed
from bridge.model_servers.shapes import EmbedApi, embed_api, in_order, query_terms, rerank_api, terms_body
from bridge.profile import ImageSettings, SparseSettings
from bridge.records import Terms
from bridge.search.cascade import CascadeRequest
from bridge.settings import Settings, masked, without_secrets
from bridge.text import decode

DEADLINE_HEADER = "x-request-timeout-ms"
"""Tells the sidecar how many milliseconds its answer is worth waiting for."""

MAX_ANSWER_BYTES = 8_000_000
"""An answer holds one embedding, or a score for each of at most some hundred passages: far less."""

_READY_TIMEOUT = aiohttp.ClientTimeout(total=3.0)

_ILL = (401, 403, 408, 424, 429)
"""What of 4xx a server answers whatever the request holds; the others refuse this one alone."""
_TOO_LARGE = 413
_MISFITS = 1000
_REMEDIES = {
    401: "it wants another API key, see sidecar.api_key, embedder.api_key, reranker.api_key",
    403: "it wants another API key, see sidecar.api_key, embedder.api_key, reranker.api_key",
    413: "it takes fewer texts at once, see rerank.depth of the index, sidecar.max_documents, reranker.max_passages",
    424: "its model failed",
    429: "it has too much to do",
}
FEWEST_READ = 5
"""A search with less time than for these asks for them all the same: they are most of the first page."""
_USABLE_SHARE = 0.75
"""Of the time left: what a reranker that reads as fast as lately may take. The rest is for its being slower now."""
_AFTER_FAILURE = 0.7
_TELLING_S = 0.1
_SHORTEST_S = 1e-6
_NEWEST_SHARE = 0.3
"""Weight of the newest request in the average pace."""
_Query: TypeAlias = tuple[str, int | str, str]
"""An encoder's identity, what an index wants of it (how long an embedding is, how queries get terms), and a text."""
_T = TypeVar("_T")


class CircuitBreaker:
    """Leaves a server alone after several failures in a row; then one caller at a time may try it.

    So a dead or drowning server costs searches nothing, and is used again within seconds of its recovery. Call
    `allows` before a request, and `succeeded`, `failed` or `refused` after it.
    """

    def __init__(self, *, failures: int, reset_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        """`failures` in a row open the breaker for `reset_s`; `clock` gives seconds."""
        self._limit = failures
        self._reset_s = reset_s
        self._clock = clock
        self._failures = 0
        self._late_at = -math.inf
        self._open_until: float | None = None

    @property
    def now(self) -> float:
        """The clock's seconds."""
        return self._clock()

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

    def failed(self, *, sent_at: float | None = None) -> None:
        """The server did not answer, or answered nonsense. `sent_at`, in the clock's seconds, of a request that it did
        not answer in time: those that were under way together count once, because one moment of overload makes all
        of them late."""
        if sent_at is not None:
            if sent_at < self._late_at:
                return
            self._late_at = self._clock()
        self._failures += 1
        if self._failures >= self._limit:
            self._open_until = self._clock() + self._reset_s

    def refused(self) -> None:
        """The server refused this one request, which says nothing of the next: while open, another may try at once."""
        if self._open_until is not None:
            self._open_until = self._clock()


class ReadingPace:
    """How fast the reranker has read lately, all searches of this proxy together: a search asks for no more than it can
    have in time. To whoever shares the reranker with others it looks slower."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` gives seconds."""
        self._clock = clock
        self._chars_per_s: float | None = None
        self._under_way = 0
        self._char_seconds = 0.0  # characters under way, summed over time
        self._counted_at = clock()

    @contextmanager
    def reading(self, n_chars: int) -> Iterator[None]:
        """Counts so many characters as under way for the length of the block, and learns from how long it takes."""
        began, until_then = self._change(n_chars)
        succeeded = False
        try:
            yield
            succeeded = True
        finally:
            ended, until_now = self._change(-n_chars)
            took_s = max(ended - began, _SHORTEST_S)
            # Requests share the reranker: each takes as long as reading all that is under way beside it.
            self._learn((until_now - until_then) / took_s, took_s, succeeded=succeeded)

    def _change(self, n_chars: int) -> tuple[float, float]:
        now = self._clock()
        self._char_seconds += self._under_way * (now - self._counted_at)
        self._counted_at = now
        self._under_way += n_chars
        return now, self._char_seconds

    def _learn(self, n_chars: float, took_s: float, *, succeeded: bool) -> None:
        known, seen = self._chars_per_s, n_chars / took_s
        if not succeeded:
            # It read less than that. Waiting for an average to say so would let many searches in a row come too late.
            seen *= _AFTER_FAILURE
            known = seen if known is None else min(known, seen)
        # A short request mostly tells what asking costs. It may show that the reranker is faster than it was thought.
        if took_s >= _TELLING_S or (succeeded and known is not None and seen > known):
            self._chars_per_s = seen if known is None else known + _NEWEST_SHARE * (seen - known)

    def affordable(self, sizes: Sequence[int], seconds: float) -> int:
        """How many texts, the first ones, can be read in that time beside what is under way; at least `FEWEST_READ`, so
        that the pace stays known, and all of them as long as it is not known. `sizes`: characters of each."""
        if self._chars_per_s is None:
            return len(sizes)
        room = self._chars_per_s * seconds * _USABLE_SHARE - self._under_way
        return min(max(sum(total <= room for total in accumulate(sizes)), FEWEST_READ), len(sizes))


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

    def fail(
        self, reason: str, detail: str, cause: BaseException | None = None, *, sent_at: float | None = None
    ) -> NoReturn:
        """Counts a failure of the server; `sent_at` as for `CircuitBreaker.failed`.

        Raises:
            StageFailed: always; `STAGE_reason`.
        """
        self._breaker.failed(sent_at=sent_at)
        raise StageFailed(f"{self._stage}_{reason}", detail) from cause

    def succeeded(self) -> None:
        """Counts a usable answer: the breaker closes."""
        self._breaker.succeeded()

    async def relay(self, content: bytes, *, deadline: float) -> tuple[int, bytes]:
        """Posts JSON as it is; the server's own answer, status and body, which counts as those to `ask` do.

        Raises:
            StageFailed: `STAGE_unavailable`, `STAGE_slow` or `STAGE_unusable`: there is no answer, or none that a
                caller could do anything about.
        """
        status, answer = await self._send(content, deadline)
        if status == 200:
            self._breaker.succeeded()
        elif _refuses_one(status):
            self._breaker.refused()
        elif status in (401, 403):
            # The caller has no key of the server's to correct.
            self._refused(status)
        else:
            self._breaker.failed()
        return status, answer

    async def _answer(self, body: object, deadline: float) -> bytes:
        status, content = await self._send(msgspec.json.encode(body), deadline)
        if status != 200:
            self._refused(status)
        return content

    async def _send(self, content: bytes, deadline: float) -> tuple[int, bytes]:
        """Posts JSON, unless the server is being left alone; status and body of the answer."""
        if not self._breaker.allows():
            raise StageFailed(f"{self._stage}_unavailable", f"{self.url} failed repeatedly and is left alone")
        remaining = deadline - asyncio.get_running_loop().time()
        if remaining <= 0:
            # Earlier stages took it all: no fault of the server's.
            raise StageFailed(f"{self._stage}_slow", f"no time of the budget was left for {self.url}")
        headers = {**self._headers, **tracing.outgoing(), "Content-Type": "application/json"}
        if self._send_deadline:
            headers[DEADLINE_HEADER] = str(max(1, int(remaining * 1000)))
        sent_at = self._breaker.now
        try:
            async with (
                asyncio.timeout_at(deadline),
                self._session.post(self._url, data=content, headers=headers, allow_redirects=False) as answer,
            ):
                return answer.status, await read_answer(answer)
        except TimeoutError as error:
            self.fail("slow", f"{self.url} did not answer within the budget", error, sent_at=sent_at)
        except aiohttp.ClientError as error:
            self.fail("unavailable", f"{self.url} gave no answer: {without_secrets(str(error), self._url)}", error)
        except OversizedAnswer as error:
            self.fail("unusable", f"the answer of {self.url} {error}", error)

    def _refused(self, status: int) -> NoReturn:
        remedy = f" ({_REMEDIES[status]})" if status in _REMEDIES else ""
        message = f"{self.url} answered with status {status}{remedy}"
        if _refuses_one(status):
            self._breaker.refused()
            raise NotTaken(f"{self._stage}_unavailable", message, status=status)
        self.fail("overloaded" if status == 429 else "unavailable", message)


def _refuses_one(status: int) -> bool:
    """Whether a status refuses one request and says nothing of the next."""
    return 400 <= status < 500 and status not in _ILL


class _Info(msgspec.Struct):
    embedding_model_id: str | None = None
    embedding_model_ids: list[str] = []
    sparse_model_ids: list[str] = []

    @property
    def encoders(self) -> list[str]:
        """All encoders that the sidecar names."""
        return self.embedding_model_ids or ([self.embedding_model_id] if self.embedding_model_id else [])


class QueryCache(Generic[_T]):
    """Remembers what a model made of `size` queries, those used last, by model and query: all callers share it."""

    def __init__(self, size: int) -> None:
        self._known: LRUCache[_Query, _T] = LRUCache(size)
        self._under_way: dict[_Query, asyncio.Future[_T]] = {}

    async def get(self, key: _Query, make: Callable[[], Awaitable[_T]]) -> _T:
        """What `key` names, by `make` if it is not known yet; what that raises, all raise that wait for it.

        A search that is given up leaves the making to those that wait, and to the next.
        """
        if (known := self._known.get(key)) is not None:
            return known
        if (under_way := self._under_way.get(key)) is None:
            self._under_way[key] = under_way = asyncio.ensure_future(make())
            under_way.add_done_callback(lambda made: self._made(key, made))
        return await asyncio.shield(under_way)

    def _made(self, key: _Query, made: asyncio.Future[_T]) -> None:
        del self._under_way[key]
        if not made.cancelled() and made.exception() is None:
            self._known[key] = made.result()


class Sidecar:
    """The sidecar, and what stands in its place for one task or both. Use as an async context manager.

    Attributes:
        pace: how fast the large cross-encoder reads.
    """

    def __init__(self, settings: Settings) -> None:
        proxy = settings.proxy
        self.url = proxy.sidecar_url.rstrip("/")
        self._settings = settings
        self._rerank_api = rerank_api(settings.reranker)
        self._embed_api = embed_api(
            settings.embedder.api, model=settings.embedder.model, prompt=settings.embedder.prompt
        )
        # A list of 384 numbers takes 12 KB, an array 3.
        self._embeddings: QueryCache[array[float]] = QueryCache(proxy.cached_embeddings)
        self._terms: QueryCache[Terms] = QueryCache(proxy.cached_embeddings)
        # What does not fit one index's settings is no fault of the server's, and stays that index's.
        self._misfits: TTLCache[tuple[str, int], str] = TTLCache(_MISFITS, proxy.profile_ttl_s)
        # Another encoder may be there after a restart; nothing tells of it but the sidecar itself.
        self._known_info: TTLCache[str, _Info] = TTLCache(1, proxy.profile_ttl_s)
        # One that lacks a small cross-encoder may have been given one by its next start.
        self._cascade_refusal: TTLCache[str, str] = TTLCache(1, proxy.profile_ttl_s)
        self.pace = ReadingPace()
        self._own_headers = _bearer(settings.sidecar.api_key)
        self._running = AsyncExitStack()
        self._session: aiohttp.ClientSession
        self._reranker: ModelStage
        self._sentence_reader: ModelStage
        self._embedder: ModelStage
        self._weigher: ModelStage
        self._image_embedder: ModelStage
        self._openai_embedder: ModelStage

    async def __aenter__(self) -> Self:
        self._session = await self._running.enter_async_context(
            aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0),
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=False,
            )
        )
        reranker, embedder = self._settings.reranker, self._settings.embedder
        self._reranker = self._server("rerank", "rerank", "/rerank", reranker.url, reranker.api_key)
        self._sentence_reader = self._server("sentences", "sentences", "/rerank", reranker.url, reranker.api_key)
        self._embedder = self._server("embedder", "embed", "/embed", embedder.url, embedder.api_key)
        self._weigher = self._server("sparse", "weigh", "/embed_sparse", None, None)
        self._image_embedder = self._server("image", "embed_image", "/embed", None, None)
        self._openai_embedder = self._server("embedder", "embed", "/v1/embeddings", None, None)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._running.aclose()

    def _server(
        self, stage: str, span: str, path: str, other_url: str | None, other_key: SecretStr | None
    ) -> ModelStage:
        """The sidecar for one task, or the server in its place, which does not get the sidecar's API key."""
        own = other_url is None
        proxy = self._settings.proxy
        # A breaker each: a drowning reranker, or a program's large batches, is no reason to stop embedding queries.
        return ModelStage(
            self._session,
            other_url or self.url + path,
            CircuitBreaker(failures=proxy.breaker_failures, reset_s=proxy.breaker_reset_s),
            stage=stage,
            span=span,
            headers=self._own_headers if own else _bearer(other_key),
            send_deadline=own,
        )

    async def embed(self, text: str, *, dimension: int, identity: str, deadline: float) -> list[float]:
        """The query's embedding, of unit length, `dimension` numbers.

        `identity` is the encoder that embedded the index; `deadline` is on the event loop's clock.

        Raises:
            StageFailed: `embedder_unavailable`, `embedder_slow`, `embedder_overloaded`,
                `embedder_unusable` for an answer that is no such embedding, or `encoder_mismatch` if
                the sidecar says that it runs another encoder.
        """
        if (misfit := self._misfits.get((identity, dimension))) is not None:
            raise StageFailed("embedder_unusable", misfit)
        embedding = await self._embeddings.get(
            (identity, dimension, text),
            lambda: self._embedded(text, dimension=dimension, identity=identity, deadline=deadline),
        )
        return embedding.tolist()

    async def _embedded(self, text: str, *, dimension: int, identity: str, deadline: float) -> "array[float]":
        # Of another server the operator vouches that its encoder is the index's.
        served = await self._info(deadline) if self._settings.embedder.url is None else _Info()
        if served.encoders and identity not in served.encoders:
            raise StageFailed(
                "encoder_mismatch",
                f"the index was embedded by {identity}, the sidecar runs {', '.join(served.encoders)}: start it with "
                f"that encoder, or ingest anew",
            )
        # It may have restarted with another encoder: naming the model makes it refuse, so that vectors do not mix.
        body = self._embed_api.body([text], "query", model=identity if served.embedding_model_ids else None)
        embedding = await _one_embedding(self._embedder, self._embed_api, body, deadline=deadline)
        if (length := len(embedding)) != dimension:
            misfit = (
                f"{self._embedder.url} gives embeddings of {length} numbers, and the index has some of {dimension}: "
                f"does it run {identity}?"
            )
            self._misfits[identity, dimension] = misfit
            raise StageFailed("embedder_unusable", misfit)
        return embedding

    async def embed_for_images(self, text: str, image: ImageSettings, *, deadline: float) -> list[float]:
        """The query's embedding in the space of the index's pictures, of unit length. The sidecar alone makes it: a
        server in its place has one encoder, for texts.

        Raises:
            StageFailed: `image_unavailable`, `image_slow`, `image_overloaded`, `image_unusable` for an answer that is
                no such embedding, or `image_mismatch` if the sidecar says that it lacks the image encoder.
        """
        identity = image.encoder.identity
        embedding = await self._embeddings.get(
            (identity, image.dimension, text), lambda: self._embedded_for_images(text, identity, deadline)
        )
        if len(embedding) != image.dimension:
            raise StageFailed(
                "image_unusable",
                f"{self._image_embedder.url} gives embeddings of {len(embedding)} numbers, and the index has pictures' "
                f"of {image.dimension}: does it run {identity}?",
            )
        return embedding.tolist()

    async def _embedded_for_images(self, text: str, identity: str, deadline: float) -> "array[float]":
        served = await self._info(deadline)
        if served.encoders and identity not in served.encoders:
            raise StageFailed(
                "image_mismatch",
                f"the index's pictures were embedded by {identity}, the sidecar runs {', '.join(served.encoders)}: "
                f"name that image encoder in sidecar.more_encoders, or ingest anew",
            )
        api = embed_api("sidecar", model=None, prompt=None)
        body = api.body([text], "query", model=identity)
        return await _one_embedding(self._image_embedder, api, body, deadline=deadline)

    async def weigh(self, text: str, sparse: SparseSettings, *, deadline: float) -> Terms:
        """The query's weighted terms as the index's profile wants them; empty if it has none.

        Raises:
            StageFailed: `sparse_unavailable`, `sparse_slow`, `sparse_overloaded`, `sparse_unusable` for an answer that
                is no list of terms, or `sparse_mismatch` if the sidecar says that it runs another sparse encoder.
        """
        key = (sparse.encoder.identity, sparse.queries, text)
        return await self._terms.get(key, lambda: self._weighed(text, sparse, deadline))

    async def _weighed(self, text: str, sparse: SparseSettings, deadline: float) -> Terms:
        served, identity = await self._info(deadline), sparse.encoder.identity
        if served.sparse_model_ids and identity not in served.sparse_model_ids:
            raise StageFailed(
                "sparse_mismatch",
                f"the index's terms are those of {identity}, the sidecar runs {', '.join(served.sparse_model_ids)}: "
                f"start it with that sparse encoder, or ingest anew",
            )
        terms = await self._weigher.ask(terms_body(text, sparse), query_terms, deadline=deadline)
        self._weigher.succeeded()
        # Only these are searched; queries share the vocabulary, and then its strings in memory.
        return {sys.intern(term): weight for term, weight in islice(terms.items(), MAX_QUERY_TERMS)}

    def check_cascade(self) -> None:
        """Asks nothing of the reranker, but remembers what it said.

        Raises:
            CascadeMissing: it knows no cascades, or said a short while ago that it has no small cross-encoder.
        """
        if not self._rerank_api.cascades:
            raise CascadeMissing(f"{self._reranker.url} is no sidecar: it knows no cascades")
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
        try:
            if cascade is not None:  # read by two models, of which one is far faster
                return await self._logits(self._reranker, query, passages, deadline, cascade)
            with self.pace.reading(sum(map(len, passages))):
                return await self._logits(self._reranker, query, passages, deadline, None)
        except NotTaken as refusal:
            if cascade is None:
                raise
            message = f"the sidecar at {masked(self.url)} takes no cascade_depth: {refusal}"
            if refusal.status != _TOO_LARGE:
                self._cascade_refusal[self.url] = message
            raise CascadeMissing(message) from refusal

    async def read_sentences(self, query: str, sentences: Sequence[str], *, deadline: float) -> list[float]:
        """The cross-encoder's logits, one per sentence, in their order.

        Raises:
            StageFailed: `sentences_unavailable`, `sentences_slow`, `sentences_overloaded`, `sentences_unusable`, as
                `rerank` has them. None of them opens the breaker of `rerank`.
        """
        return await self._logits(self._sentence_reader, query, sentences, deadline, None)

    async def _logits(
        self, reader: ModelStage, query: str, texts: Sequence[str], deadline: float, cascade: CascadeRequest | None
    ) -> list[float]:
        if self._settings.reranker.url is None:
            return await self._logits_at_once(reader, query, texts, deadline, cascade)
        step = self._settings.reranker.max_passages
        parts = [texts[start : start + step] for start in range(0, len(texts), step)]
        scored = await asyncio.gather(*(self._logits_at_once(reader, query, part, deadline, None) for part in parts))
        return [logit for part in scored for logit in part]

    async def _logits_at_once(
        self, reader: ModelStage, query: str, texts: Sequence[str], deadline: float, cascade: CascadeRequest | None
    ) -> list[float]:
        body = self._rerank_api.body(query, texts, cascade)
        logits = await reader.ask(
            body, lambda answer: in_order(self._rerank_api.scores(answer), len(texts)), deadline=deadline
        )
        reader.succeeded()
        return logits

    async def _info(self, deadline: float) -> _Info:
        """The sidecar's models; none if it does not say."""
        if (known := self._known_info.get(self.url)) is not None:
            return known
        try:
            async with (
                asyncio.timeout_at(deadline),
                self._session.get(f"{self.url}/info", headers=self._own_headers) as answer,
            ):
                served = decode(await read_answer(answer), _Info) if answer.status == 200 else _Info()
        except (aiohttp.ClientError, TimeoutError, msgspec.DecodeError, OversizedAnswer):
            # Whether it can embed is found out by asking it to.
            return _Info()
        self._known_info[self.url] = served
        return served

    async def openai_embeddings(self, body: bytes, *, deadline: float) -> tuple[int, bytes]:
        """The sidecar's own answer, status and body, to a request in OpenAI's shape; `deadline` on the event loop's
        clock.

        Raises:
            StageFailed: as `ModelStage.relay`; or another server is in the sidecar's place (`embedder.url`).
        """
        if self._settings.embedder.url is not None:
            raise StageFailed(
                "embedder_unavailable", "embedder.url names another embedder: ask that one for embeddings"
            )
        return await self._openai_embedder.relay(body, deadline=deadline)

    async def ready(self) -> bool | None:
        """Whether the sidecar says that it can serve; None if it has nothing to serve."""
        if self._settings.reranker.url is not None and self._settings.embedder.url is not None:
            return None
        try:
            async with self._session.get(f"{self.url}/ready", timeout=_READY_TIMEOUT) as answer:
                return answer.status == 200
        except (aiohttp.ClientError, TimeoutError):
            return False


async def _one_embedding(
    embedder: ModelStage, api: EmbedApi, body: Mapping[str, object], *, deadline: float
) -> "array[float]":
    embeddings = await embedder.ask(body, api.embeddings, deadline=deadline)
    if len(embeddings) != 1 or not all(map(math.isfinite, embeddings[0])):
        embedder.fail("unusable", f"the answer of {embedder.url} is not one row of finite numbers")
    embedder.succeeded()
    return array("d", embeddings[0])


def _bearer(key: SecretStr | None) -> dict[str, str]:
    return {"Authorization": f"Bearer {key.get_secret_value()}"} if key is not None else {}
