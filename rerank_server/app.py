"""The sidecar's HTTP application: its routes, deadlines, access and refusals."""

import asyncio
import hmac
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

import numpy as np
import structlog
from aiohttp import web
from aiohttp.typedefs import Handler
from numpy.typing import NDArray

from bridge.errors import ModelError
from bridge.http_deadlines import SlowClient, read_body
from bridge.models.artifact import Role
from bridge.models.encoder import Encoder
from bridge.models.session import compute_threads
from bridge.settings import SidecarSettings
from rerank_server import messages, metrics, operations
from rerank_server.batching import WorkQueue
from rerank_server.errors import OPENAI_PATHS, InvalidRequest, Overloaded, RequestRefused, error_answer, status_of
from rerank_server.expansion import Expander
from rerank_server.models import Models
from rerank_server.scoring import ScoreCache, Scorer

DEADLINE_HEADER = "x-request-timeout-ms"
"""Longest stay of a request in milliseconds, unless the sidecar's own limit is shorter."""

BODY_TIMEOUT_S = 10.0

OPEN_ROUTES = frozenset({"/health", "/ready", "/metrics"})
"""Answered without the API key: they are for probes, and hold nothing of any request."""

log = structlog.get_logger(__name__)

Answer = Callable[[web.Request, Models, float], Awaitable[bytes]]
"""A request, the models that answer it, and its deadline → the answer's body."""


class Sidecar:
    """The application's state and its handlers."""

    def __init__(self, settings: SidecarSettings, models: Models) -> None:
        """Nothing runs yet: see `application`."""
        self.settings = settings
        self.draining = False
        self.metrics = metrics.Metrics()
        self.use(models)
        self.queue = WorkQueue(
            threads=compute_threads(settings.threads),
            max_queued=settings.max_queued_pairs,
            max_batch_tokens=settings.max_batch_tokens,
            metrics=self.metrics,
        )
        self._scorer = Scorer(settings, self.queue, ScoreCache(max_pairs=settings.cached_pairs, metrics=self.metrics))
        self._expander = Expander(self.queue)

    def use(self, models: Models) -> None:
        """Answers new requests with `models`; running ones finish with the models that they began with."""
        self.models = models
        self.metrics.show_models(models.identities)

    def application(
        self, *, middlewares: Sequence[Callable[..., Awaitable[web.StreamResponse]]] = ()
    ) -> web.Application:
        """Builds the application; the computing threads live as long as it runs."""
        app = web.Application(
            client_max_size=self.settings.max_body_bytes,
            middlewares=[*middlewares, self._observed, self._authorised],
        )
        for path in ("/rerank", "/v1/rerank", "/v2/rerank"):
            app.router.add_post(path, self._computing(self._rerank))
        app.router.add_post("/infinity/rerank", self._computing(partial(self._rerank, plain_documents=True)))
        app.router.add_post("/opensearch/rerank", self._computing(self._opensearch_rerank))
        app.router.add_post("/embed", self._computing(self._embed))
        app.router.add_post("/embed_sparse", self._computing(self._embed_sparse))
        for path in OPENAI_PATHS:
            app.router.add_post(path, self._computing(self._embeddings))
        app.router.add_post("/", self._computing(self._any_of_tei))
        app.router.add_post("/expand", self._computing(self._expand))
        for path, answer in operations.ROUTES.items():
            app.router.add_get(path, partial(answer, self))
        app.on_startup.append(self._start)
        app.on_cleanup.append(self._stop)
        return app

    async def _start(self, _app: web.Application) -> None:
        self.queue.start()

    async def _stop(self, _app: web.Application) -> None:
        await asyncio.to_thread(self.queue.stop)
        self._expander.close()

    # Requests that compute

    async def _rerank(
        self, request: web.Request, models: Models, deadline: float, *, plain_documents: bool = False
    ) -> bytes:
        parsed = messages.parse(await self._body(request), messages.RerankRequest)
        scored = await self._scorer.scored(parsed, models, deadline=deadline)
        return messages.rerank_answer(parsed, scored, plain_documents=plain_documents)

    async def _opensearch_rerank(self, request: web.Request, models: Models, deadline: float) -> bytes:
        parsed = messages.parse(await self._body(request), messages.RerankRequest)
        return messages.opensearch_rerank_answer(parsed, await self._scorer.scored(parsed, models, deadline=deadline))

    async def _embed(self, request: web.Request, models: Models, deadline: float) -> bytes:
        parsed = messages.parse(await self._body(request), messages.EmbedRequest)
        encoder = models.encoder_called(parsed.model)
        embeddings, _ = await self._embedded(parsed.inputs, parsed.role, encoder, deadline, field="inputs")
        return messages.embed_answer(embeddings)

    async def _embed_sparse(self, request: web.Request, models: Models, deadline: float) -> bytes:
        parsed = messages.parse(await self._body(request), messages.SparseEmbedRequest)
        encoder = models.sparse_encoder_called(parsed.model)
        texts = messages.checked_texts(parsed.texts, field="inputs", most=self.settings.max_documents)
        with self.queue.admitted(len(texts)):
            if parsed.role == "query" and parsed.queries == "idf":
                terms = await self.queue.prepared(lambda: [encoder.query_terms(text) for text in texts])
            else:
                sequences = await self.queue.prepared(partial(encoder.sequences, texts, parsed.role))
                terms = await self.queue.run(sequences, encoder.terms_of_sequences, deadline=deadline)
        return messages.sparse_answer(terms, encoder.ids)

    async def _embeddings(self, request: web.Request, models: Models, deadline: float) -> bytes:
        parsed = messages.parse(await self._body(request), messages.EmbeddingsRequest)
        encoder = models.encoder_called(parsed.model)
        if parsed.dimensions not in (None, encoder.dimension):
            raise InvalidRequest(
                f"dimensions: {encoder.identity} gives {encoder.dimension} numbers and cannot be shortened",
                field="dimensions",
            )
        embeddings, tokens = await self._embedded(parsed.input, parsed.role, encoder, deadline, field="input")
        return messages.embeddings_answer(parsed, embeddings, model=encoder.identity, tokens=tokens)

    async def _any_of_tei(self, request: web.Request, models: Models, deadline: float) -> bytes:
        """`POST /` of text-embeddings-inference does what its one model is for: here the body tells."""
        asks_to_embed = messages.asks_to_embed(await self._body(request))
        return await (self._embed if asks_to_embed else self._rerank)(request, models, deadline)

    async def _expand(self, request: web.Request, models: Models, deadline: float) -> bytes:
        parsed = messages.parse(await self._body(request), messages.ExpandRequest)
        messages.checked_texts(parsed.texts, field="inputs", most=self.settings.max_documents)
        return messages.expand_answer(await self._expander.queries(parsed, models.generator, deadline=deadline))

    async def _embedded(
        self, inputs: str | list[str], role: Role, encoder: Encoder, deadline: float, *, field: str
    ) -> tuple[NDArray[np.float32], int]:
        """The embeddings in input order, and the tokens that they took."""
        listed = [inputs] if isinstance(inputs, str) else inputs
        texts = messages.checked_texts(listed, field=field, most=self.settings.max_documents)
        with self.queue.admitted(len(texts)):
            sequences = await self.queue.prepared(partial(encoder.sequences, texts, role))
            rows = await self.queue.run(sequences, encoder.embed_sequences, deadline=deadline)
        return np.stack(rows), sum(sequence["input_ids"].size for sequence in sequences)

    async def _body(self, request: web.Request) -> bytes:
        if request.headers.get("Content-Encoding", "identity") != "identity":
            raise web.HTTPUnsupportedMediaType(text="Content-Encoding: bodies must come uncompressed")
        if request.content_type != "application/json":
            raise web.HTTPUnsupportedMediaType(text="Content-Type: application/json is needed")
        if (request.content_length or 0) > self.settings.max_body_bytes:
            raise web.HTTPRequestEntityTooLarge(self.settings.max_body_bytes, request.content_length or 0)
        return await read_body(request, timeout_s=BODY_TIMEOUT_S)

    def _computing(self, answer: Answer) -> Handler:
        """A handler with the request's deadline, and JSON for every refusal."""

        async def handle(request: web.Request) -> web.StreamResponse:
            try:
                body = await answer(request, self.models, self._deadline(request))
            except (RequestRefused, ModelError) as error:
                return self._refusal(error, request.path)
            except SlowClient as error:
                return error_answer(408, "slow_body", str(error), path=request.path, close=True)
            except web.HTTPUnsupportedMediaType as error:
                return error_answer(415, "media_type", error.text or error.reason, path=request.path)
            except web.HTTPRequestEntityTooLarge:
                limit = self.settings.max_body_bytes
                message = f"the body exceeds {limit} bytes: send several requests"
                return error_answer(413, "too_large", message, path=request.path, close=True)
            return web.Response(body=body, content_type="application/json")

        return handle

    def _deadline(self, request: web.Request) -> float:
        """The event loop's time at which the request must be answered."""
        longest_s = self.settings.request_timeout_s
        if (header := request.headers.get(DEADLINE_HEADER)) is not None:
            if not (header.isascii() and header.isdigit() and int(header[:12]) > 0):
                raise InvalidRequest(
                    f"{DEADLINE_HEADER}: a whole number of milliseconds above 0 is needed", field=DEADLINE_HEADER
                )
            longest_s = min(longest_s, int(header[:12]) / 1000)
        return asyncio.get_running_loop().time() + longest_s

    def _refusal(self, error: RequestRefused | ModelError, path: str) -> web.Response:
        status, kind = status_of(error)
        if isinstance(error, ModelError):
            self.metrics.model_errors.inc()
            log.error("model failed", error=str(error))
        field = error.field if isinstance(error, InvalidRequest) else None
        response = error_answer(status, kind, str(error), path=path, field=field)
        if isinstance(error, Overloaded):
            response.headers["Retry-After"] = str(error.retry_after_s)
        return response

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
            refusal = error_answer(status, "http", error.reason, path=request.path)
            if "Allow" in error.headers:
                refusal.headers["Allow"] = error.headers["Allow"]
            return refusal
        finally:
            took_s = time.monotonic() - started
            self.metrics.requests.labels(route, str(status)).inc()
            self.metrics.request_duration.labels(route).observe(took_s)
            log.info("request", route=route, status=status, took_ms=round(took_s * 1000, 1))
        return response

    @web.middleware
    async def _authorised(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        key = self.settings.api_key
        if key is not None and request.path not in OPEN_ROUTES:
            expected = f"Bearer {key.get_secret_value()}".encode()
            sent = request.headers.get("Authorization", "").encode("utf-8", "replace")
            if not hmac.compare_digest(sent, expected):
                response = error_answer(
                    401, "unauthorised", "send the API key as `Authorization: Bearer …`", path=request.path
                )
                response.headers["WWW-Authenticate"] = "Bearer"
                return response
        return await handler(request)


def _route(request: web.Request) -> str:
    """The route's own path, so that no word of a client becomes a metric's label."""
    resource = request.match_info.route.resource
    return resource.canonical if resource is not None else "unknown"
