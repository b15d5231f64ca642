"""The sidecar's HTTP application: `/rerank`, `/embed`, and what operators ask."""

import asyncio
import hmac
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

import msgspec
import numpy as np
import structlog
from aiohttp import web
from aiohttp.typedefs import Handler
from numpy.typing import NDArray

from bridge import __version__
from bridge.errors import ModelError
from bridge.http_deadlines import FirstRequestDeadline, SlowClient, read_body
from bridge.models.artifact import resolve
from bridge.models.cross_encoder import CrossEncoder
from bridge.models.encoder import Encoder, Role
from bridge.models.session import compute_threads
from bridge.models.tokenization import TokenArrays
from bridge.settings import SidecarSettings
from rerank_server import messages, metrics, openapi
from rerank_server.batching import WorkQueue
from rerank_server.errors import InvalidRequest, Overloaded, RequestRefused, status_of
from rerank_server.score_cache import ScoreCache

DEADLINE_HEADER = "x-request-timeout-ms"
"""Longest stay of a request in milliseconds; the sidecar's own limit holds where it is shorter."""

HEADER_TIMEOUT_S = 10.0
BODY_TIMEOUT_S = 10.0
LINGERING_S = 2.0
"""How long the rest of a refused body is read, so that the client sees the answer and not a reset."""

OPEN_ROUTES = frozenset({"/health", "/ready", "/metrics"})
"""Answered without the API key: they are for probes, and hold nothing of any request."""

log = structlog.get_logger(__name__)

Answer = Callable[[web.Request, float], Awaitable[bytes]]


@dataclass(frozen=True, slots=True)
class Models:
    """The loaded models."""

    cross_encoder: CrossEncoder
    encoder: Encoder

    @classmethod
    def load(cls, settings: SidecarSettings) -> "Models":
        """Opens the models that the settings name.

        Raises:
            ModelError: a folder is missing, damaged, or of the wrong kind.
        """
        return cls(
            cross_encoder=CrossEncoder.load(resolve(settings.rerank_model), threads=1),
            encoder=Encoder.load(resolve(settings.encoder), threads=1),
        )


class Sidecar:
    """The application's state and its handlers."""

    def __init__(self, settings: SidecarSettings, models: Models) -> None:
        """Nothing runs yet: see `application`."""
        self._settings = settings
        self._models = models
        self._metrics = metrics.Metrics()
        self._metrics.show_models(models.cross_encoder.identity, models.encoder.identity)
        self._queue = WorkQueue(
            threads=compute_threads(settings.threads),
            max_queued=settings.max_queued_pairs,
            max_batch_tokens=settings.max_batch_tokens,
            metrics=self._metrics,
        )
        self._cache = ScoreCache(max_pairs=settings.cached_pairs, metrics=self._metrics)
        self._tokenizing = ThreadPoolExecutor(1, thread_name_prefix="tokenize")
        self.draining = False

    def application(
        self, *, middlewares: Sequence[Callable[..., Awaitable[web.StreamResponse]]] = ()
    ) -> web.Application:
        """Builds the application; the computing threads live as long as it runs."""
        app = web.Application(
            client_max_size=self._settings.max_body_bytes,
            middlewares=[*middlewares, self._observed, self._authorised],
        )
        for path in ("/rerank", "/v1/rerank", "/v2/rerank"):
            app.router.add_post(path, self._computing(self._rerank))
        app.router.add_post("/opensearch/rerank", self._computing(self._opensearch_rerank))
        app.router.add_post("/embed", self._computing(self._embed))
        app.router.add_post("/v1/embeddings", self._computing(self._embeddings))
        app.router.add_get("/health", self._health)
        app.router.add_get("/ready", self._ready)
        app.router.add_get("/info", self._info)
        app.router.add_get("/v1/models", self._list_models)
        app.router.add_get("/metrics", self._show_metrics)
        app.router.add_get("/openapi.json", self._openapi)
        app.on_startup.append(self._start)
        app.on_cleanup.append(self._stop)
        return app

    async def _start(self, _app: web.Application) -> None:
        self._queue.start()

    async def _stop(self, _app: web.Application) -> None:
        await asyncio.to_thread(self._queue.stop)
        self._tokenizing.shutdown()

    # Requests that compute

    async def _rerank(self, request: web.Request, deadline: float) -> bytes:
        asked = messages.parse(await self._body(request), messages.RerankRequest)
        scores, tokens = await self._scores(asked, deadline)
        return messages.rerank_answer(asked, scores, model=self._models.cross_encoder.identity, tokens=tokens)

    async def _opensearch_rerank(self, request: web.Request, deadline: float) -> bytes:
        asked = messages.parse(await self._body(request), messages.RerankRequest)
        scores, _ = await self._scores(asked, deadline)
        return messages.opensearch_rerank_answer(asked, scores)

    async def _embed(self, request: web.Request, deadline: float) -> bytes:
        asked = messages.parse(await self._body(request), messages.EmbedRequest)
        embeddings, _ = await self._embeddings_of(asked.inputs, asked.role, deadline, field="inputs")
        return messages.embed_answer(embeddings)

    async def _embeddings(self, request: web.Request, deadline: float) -> bytes:
        asked = messages.parse(await self._body(request), messages.EmbeddingsRequest)
        embeddings, tokens = await self._embeddings_of(asked.input, asked.role, deadline, field="input")
        return messages.embeddings_answer(asked, embeddings, model=self._models.encoder.identity, tokens=tokens)

    async def _scores(self, asked: messages.RerankRequest, deadline: float) -> tuple[list[float], int]:
        """The logits in input order, and the tokens that were computed for them."""
        field = "texts" if asked.texts is not None else "documents"
        passages = messages.checked_texts(asked.passages, field=field, most=self._settings.max_documents)
        model = self._models.cross_encoder
        known = self._cache.known(model.identity, asked.query, passages)
        missing = [passage for passage, score in zip(passages, known, strict=True) if score is None]
        with self._queue.admitted(len(missing)):
            pairs = await self._tokenized(
                partial(model.pairs, asked.query, missing, max_tokens=self._settings.max_pair_tokens)
            )
            computed = await self._queue.run(pairs, model.score_pair, deadline=deadline)
        self._cache.remember(model.identity, asked.query, missing, computed)
        rest = iter(computed)
        scores = [next(rest) if score is None else score for score in known]
        return scores, sum(pair["input_ids"].size for pair in pairs)

    async def _embeddings_of(
        self, inputs: str | list[str], role: Role, deadline: float, *, field: str
    ) -> tuple[NDArray[np.float32], int]:
        """The embeddings in input order, and the tokens that they took."""
        given = [inputs] if isinstance(inputs, str) else inputs
        texts = messages.checked_texts(given, field=field, most=self._settings.max_documents)
        model = self._models.encoder
        with self._queue.admitted(len(texts)):
            sequences = await self._tokenized(partial(model.sequences, texts, role))
            rows = await self._queue.run(sequences, model.embed_sequence, deadline=deadline)
        return np.stack(rows), sum(sequence["input_ids"].size for sequence in sequences)

    async def _tokenized(self, tokenize: Callable[[], list[TokenArrays]]) -> list[TokenArrays]:
        """Tokenises beside the event loop: a full request takes up to a second."""
        return await asyncio.get_running_loop().run_in_executor(self._tokenizing, tokenize)

    async def _body(self, request: web.Request) -> bytes:
        if request.headers.get("Content-Encoding", "identity") != "identity":
            raise web.HTTPUnsupportedMediaType(text="Content-Encoding: bodies must come uncompressed")
        if request.content_type != "application/json":
            raise web.HTTPUnsupportedMediaType(text="Content-Type: application/json is needed")
        if (request.content_length or 0) > self._settings.max_body_bytes:
            raise web.HTTPRequestEntityTooLarge(self._settings.max_body_bytes, request.content_length or 0)
        return await read_body(request, timeout_s=BODY_TIMEOUT_S)

    def _computing(self, answer: Answer) -> Handler:
        """A handler with the request's deadline, and JSON for every refusal."""

        async def handle(request: web.Request) -> web.StreamResponse:
            try:
                body = await answer(request, self._deadline(request))
            except (RequestRefused, ModelError) as error:
                return self._refusal(error)
            except SlowClient as error:
                return _error(408, "slow_body", str(error), close=True)
            except web.HTTPUnsupportedMediaType as error:
                return _error(415, "media_type", error.text or error.reason)
            except web.HTTPRequestEntityTooLarge:
                limit = self._settings.max_body_bytes
                return _error(413, "too_large", f"the body exceeds {limit} bytes: send several requests", close=True)
            return web.Response(body=body, content_type="application/json")

        return handle

    def _deadline(self, request: web.Request) -> float:
        """The event loop's time at which the request must be answered."""
        longest_s = self._settings.request_timeout_s
        if (given := request.headers.get(DEADLINE_HEADER)) is not None:
            if not (given.isascii() and given.isdigit() and int(given[:12]) > 0):
                raise InvalidRequest(
                    f"{DEADLINE_HEADER}: a whole number of milliseconds above 0 is needed", field=DEADLINE_HEADER
                )
            longest_s = min(longest_s, int(given[:12]) / 1000)
        return asyncio.get_running_loop().time() + longest_s

    def _refusal(self, error: RequestRefused | ModelError) -> web.Response:
        status, kind = status_of(error)
        if isinstance(error, ModelError):
            self._metrics.model_errors.inc()
            log.error("model failed", error=str(error))
        response = _error(status, kind, str(error), field=error.field if isinstance(error, InvalidRequest) else None)
        if isinstance(error, Overloaded):
            response.headers["Retry-After"] = str(error.retry_after_s)
        return response

    # What operators ask

    async def _health(self, _request: web.Request) -> web.Response:
        if not self._queue.is_alive:
            return _error(503, "dead", "a computing thread has died: restart the sidecar")
        return web.json_response({"status": "ok"})

    async def _ready(self, _request: web.Request) -> web.Response:
        if self.draining or not self._queue.is_alive:
            return _error(503, "not_ready", "the sidecar is stopping" if self.draining else "see /health")
        return web.json_response({"status": "ready"})

    async def _info(self, _request: web.Request) -> web.Response:
        settings = self._settings
        return web.json_response(
            {
                "model_id": self._models.cross_encoder.identity,
                "model_type": {"reranker": {}},
                "embedding_model_id": self._models.encoder.identity,
                "embedding_dimension": self._models.encoder.dimension,
                "max_input_length": settings.max_pair_tokens,
                "max_batch_tokens": settings.max_batch_tokens,
                "max_client_batch_size": settings.max_documents,
                "max_queued_pairs": settings.max_queued_pairs,
                "max_body_bytes": settings.max_body_bytes,
                "version": __version__,
            }
        )

    async def _list_models(self, _request: web.Request) -> web.Response:
        identities = (self._models.cross_encoder.identity, self._models.encoder.identity)
        models = [{"id": identity, "object": "model", "owned_by": "local"} for identity in identities]
        return web.json_response({"object": "list", "data": models})

    async def _show_metrics(self, _request: web.Request) -> web.Response:
        return web.Response(body=self._metrics.exposition(), headers={"Content-Type": metrics.CONTENT_TYPE})

    async def _openapi(self, _request: web.Request) -> web.Response:
        return web.json_response(openapi.document())

    # Middlewares

    @web.middleware
    async def _observed(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Counts, times and logs each request; never its texts."""
        started = time.monotonic()
        route = _route(request)
        status = 499  # the client left: nobody reads the answer
        try:
            response = await handler(request)
            status = response.status
        except web.HTTPException as error:
            status = error.status
            return _error(status, "http", error.reason)
        finally:
            took_s = time.monotonic() - started
            self._metrics.requests.labels(route, str(status)).inc()
            self._metrics.request_duration.labels(route).observe(took_s)
            log.info("request", route=route, status=status, took_ms=round(took_s * 1000, 1))
        return response

    @web.middleware
    async def _authorised(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        key = self._settings.api_key
        if key is not None and request.path not in OPEN_ROUTES:
            expected = f"Bearer {key.get_secret_value()}".encode()
            given = request.headers.get("Authorization", "").encode("utf-8", "replace")
            if not hmac.compare_digest(given, expected):
                response = _error(401, "unauthorised", "send the API key as `Authorization: Bearer …`")
                response.headers["WWW-Authenticate"] = "Bearer"
                return response
        return await handler(request)


@asynccontextmanager
async def listening(settings: SidecarSettings, models: Models) -> AsyncIterator[tuple[Sidecar, int]]:
    """The sidecar, listening, and its port; at the end it finishes what it has accepted."""
    sidecar = Sidecar(settings, models)
    first_request = FirstRequestDeadline(HEADER_TIMEOUT_S)
    runner = web.AppRunner(
        sidecar.application(middlewares=[first_request.middleware]),
        access_log=None,
        handler_cancellation=True,  # a client that left cancels its handler, which drops its work
        lingering_time=LINGERING_S,
        shutdown_timeout=settings.shutdown_timeout_s,
    )
    await runner.setup()
    watch = asyncio.create_task(first_request.watch(runner))
    try:
        await web.TCPSite(runner, settings.host, settings.port).start()
        yield sidecar, runner.addresses[0][1]
        sidecar.draining = True
    finally:
        watch.cancel()
        await runner.cleanup()


async def serve(settings: SidecarSettings, models: Models) -> None:
    """Serves until SIGTERM or SIGINT, then finishes what it has accepted."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    async with listening(settings, models) as (_, port):
        log.info("listening", host=settings.host, port=port)
        await stopping.wait()
        log.info("stopping", shutdown_timeout_s=settings.shutdown_timeout_s)


def run(settings: SidecarSettings) -> None:
    """Loads the models and serves until a signal; logs are JSON lines on stderr.

    Raises:
        ModelError: a model cannot be used; nothing was served.
    """
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    asyncio.run(serve(settings, Models.load(settings)))


def _route(request: web.Request) -> str:
    """The route's own path, so that no word of a client becomes a metric's label."""
    resource = request.match_info.route.resource
    return resource.canonical if resource is not None else "unknown"


def _error(status: int, kind: str, message: str, *, field: str | None = None, close: bool = False) -> web.Response:
    body = {"error": message, "error_type": kind, **({"field": field} if field is not None else {})}
    response = web.Response(status=status, body=msgspec.json.encode(body), content_type="application/json")
    if close:
        response.force_close()
    return response
