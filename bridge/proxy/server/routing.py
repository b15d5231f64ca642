"""Which way a request of an application's goes: searched, passed on, or refused; and what is counted of it.

Its connection comes first: raw URLs, malformed requests, slow readers, its end, and how many there may be.
"""

import asyncio
import copy
import functools
import resource
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any, Protocol, Self

import structlog
import structlog.contextvars
from aiohttp import ClientError, ClientResponse, StreamReader, hdrs, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http_exceptions import LineTooLong
from aiohttp.http_parser import RawRequestMessage
from aiohttp.web_protocol import RequestHandler
from opentelemetry.trace import Span, Tracer

from bridge import tracing
from bridge.http_deadlines import FirstRequestDeadline, SlowClient
from bridge.proxy.experiments.interleaving import CLICK_PATH, MAX_CLICK_BYTES, Interleaving
from bridge.proxy.server.metrics import Metrics
from bridge.proxy.transport import elasticsearch_clients, passthrough
from bridge.proxy.transport.headers import MARK
from bridge.proxy.transport.passthrough import AnswerMemory, Inbound, Share, read_body
from bridge.proxy.transport.refusals import Refused
from bridge.proxy.transport.upstream import Upstream
from bridge.proxy.upgrade.search import Search, search_target
from bridge.settings import Listener, ProxySettings

log = structlog.get_logger(__name__)

_MAX_OPAQUE_ID = 128
"""Characters of a client's own word for its request that log lines repeat."""

_SPARE_DESCRIPTORS = 64
"""For operators' connections, files and model servers."""
_FEWEST_CONNECTIONS = 8

MAX_AT_DOORS = 64
"""Requests to the proxy's own endpoints that are answered at a time; beyond it 429."""


class Door(Protocol):
    """An endpoint of the proxy's own that takes a whole body.

    Attributes:
        route: what metrics call it.
        path: its path; one that ends with a slash stands for all below it.
        methods: those that it takes.
        listener: which listener it is at.
    """

    route: str
    path: str
    methods: Sequence[str]
    listener: Listener

    async def answer(self, inbound: Inbound, body: bytes) -> web.Response:
        """The answer to a request.

        Raises:
            Refused: there is none.
        """

    def refusal(self, refused: Refused) -> bytes:
        """A refusal's body, JSON as the door's clients read it."""


class Proxy:
    """Answers every request of the data listener, and those to doors of the operators' listener."""

    def __init__(
        self,
        upstream: Upstream,
        memory: AnswerMemory,
        search: Search,
        doors: Sequence[Door],
        deadline: FirstRequestDeadline,
        settings: ProxySettings,
        metrics: Metrics,
        tracer: Tracer | None,
    ) -> None:
        self._upstream = upstream
        self._memory = memory
        self._tracer = tracer
        self._deadline = deadline
        self._search = search
        self._doors = doors
        self._at_doors = 0
        self._settings = settings
        self._metrics = metrics

    def in_full(self) -> Self:
        """The same for the page's viewer: every search is upgraded, whatever share of the applications' searches is,
        so that rankings can be looked at before anybody gets them."""
        twin = copy.copy(self)
        twin._settings = self._settings.model_copy(
            update={"mode": "upgrade", "canary_percent": 100.0, "path_prefix": ""}
        )
        twin._search = self._search.with_settings(twin._settings)
        return twin

    async def __call__(self, request: web.BaseRequest, door: Door | None = None) -> web.StreamResponse:
        """Answers one request: a search perhaps better, one to a door by that, everything else as the cluster does.
        With `door` it is to that one, whatever its path."""
        with tracing.request(self._tracer, request.method, request.headers) as span, _logged_with(request):
            response = await self._answered(request, span, door)
            span.set_attribute("http.response.status_code", response.status)
            return response

    def add_routes(self, router: web.UrlDispatcher) -> None:
        """Adds the operators' doors to their listener, where nothing is passed on."""
        for door in self._doors:
            if door.listener == "operators":
                below = "{below:.*}" if door.path.endswith("/") else ""
                router.add_route("*", door.path + below, functools.partial(self.__call__, door=door))

    async def _answered(self, request: web.BaseRequest, span: Span, door: Door | None) -> web.StreamResponse:
        started = asyncio.get_running_loop().time()
        self._deadline.note(request)
        route = "other"
        decision = "refuse"
        mark = ""
        status = 499  # the client left before there was an answer
        self._metrics.in_flight.inc()
        try:
            await passthrough.check_headers(request, self._settings, self._upstream)
            inbound = passthrough.inbound(request, self._settings)
            tracing.join(inbound.headers)
            passthrough.invite_body(request)
            if (target := search_target(inbound.method, inbound.target)) is not None:
                route = "search"
                response = await self._search.answer(request, inbound, target)
                mark = response.headers.get(MARK, "pass")
                decision = "pass" if mark.startswith("pass") else "upgrade"
                span.set_attribute("db.collection.name", target.expression)
                span.set_attribute("bridge.mark", mark)
            elif (door := door or self._door(inbound.target)) is not None:
                route = door.route
                decision = "upgrade"
                response = await self._entered(door, inbound)
            elif (interleaving := self._search.interleaving) is not None and (
                (inbound.method, inbound.target) == (hdrs.METH_POST, CLICK_PATH)
            ):
                route = "click"
                decision = "upgrade"
                response = await self._clicked(inbound, interleaving)
            else:
                decision = "pass"
                response = await self._passed(request, inbound)
            status = response.status
            return response
        except Refused as refused:
            decision = "refuse"
            status = refused.status
            return self._refusal(refused, door)
        except SlowClient as slow:
            status = 408
            return self._refusal(Refused(status, "request_timeout_exception", str(slow)), door)
        except web.RequestPayloadError as malformed:
            status = 400
            return self._refusal(
                Refused(status, "illegal_argument_exception", f"the body is malformed: {malformed}"), door
            )
        except Exception as error:
            if isinstance(error, ConnectionError):
                raise
            # Whatever it is, the caller gets an answer, and metrics count it as the failure that it is.
            log.exception("request failed")
            status = 500
            return self._refusal(Refused(status, "internal_error", "a fault of the proxy itself: see its log"), door)
        finally:
            self._metrics.in_flight.dec()
            self._metrics.requests.labels(route, decision, str(status)).inc()
            took_s = asyncio.get_running_loop().time() - started
            self._metrics.duration.labels(decision).observe(took_s)
            span.set_attribute("bridge.route", route)
            if self._settings.log_searches and route == "search":
                log.info("searched", decision=decision, mark=mark, status=status, took_ms=round(took_s * 1000, 1))

    def _door(self, target: str) -> Door | None:
        """The door of the applications' listener that a request is to."""
        path = target.partition("?")[0]
        for door in self._doors:
            is_meant = path.startswith(door.path) if door.path.endswith("/") else path == door.path
            if is_meant and door.listener == "applications":
                return door
        return None

    async def _entered(self, door: Door, inbound: Inbound) -> web.Response:
        if inbound.method not in door.methods:
            taken = " and ".join(door.methods)
            raise Refused(
                405, "illegal_argument_exception", f"method {inbound.method}: {door.path} takes {taken} alone"
            )
        if self._at_doors >= MAX_AT_DOORS:
            raise Refused(
                429, "rejected_execution_exception", f"{MAX_AT_DOORS} such requests are being answered: try again later"
            )
        self._at_doors += 1
        try:
            with self._memory.share() as share:
                inbound, body = await read_body(inbound, share, limit=self._settings.max_search_body_bytes)
                if body is None:
                    raise Refused(
                        413,
                        "illegal_argument_exception",
                        "the body is larger than proxy.max_search_body_bytes, or than proxy.upgrade_memory_bytes has "
                        "room for: ask for fewer texts at once",
                    )
                return await door.answer(inbound, body)
        finally:
            self._at_doors -= 1

    async def _clicked(self, inbound: Inbound, interleaving: Interleaving) -> web.Response:
        with self._memory.share() as share:
            _, body = await read_body(inbound, share, limit=MAX_CLICK_BYTES)
        if body is None:
            raise Refused(413, "illegal_argument_exception", f"a click has at most {MAX_CLICK_BYTES} bytes")
        interleaving.clicked(body)
        return web.Response(status=204)

    async def _passed(self, request: web.BaseRequest, inbound: Inbound) -> web.StreamResponse:
        """The cluster's own answer; where it says who the cluster is and where, that it is here."""
        with self._memory.share() as sent:
            rewrite: Callable[[bytes], bytes] | None = None
            is_get = inbound.method == hdrs.METH_GET
            if is_get and self._settings.keep_sniffing_clients and elasticsearch_clients.asks_for_nodes(inbound.target):
                rewrite = functools.partial(elasticsearch_clients.with_address, address=_address(request))
            elif self._settings.es_compat:
                inbound, rewrite = await self._translated(request, inbound, sent)
            if rewrite is None:
                return await passthrough.relay(request, await passthrough.send(self._upstream, inbound), {})
            inbound.headers.popall(hdrs.ACCEPT_ENCODING, None)
            return await self._rewritten(request, await passthrough.send(self._upstream, inbound), rewrite)

    async def _rewritten(
        self, request: web.BaseRequest, answer: ClientResponse, rewrite: Callable[[bytes], bytes]
    ) -> web.StreamResponse:
        """The cluster's answer with another body; one that is packed, or larger than memory is left for, as it is."""
        if hdrs.CONTENT_ENCODING in answer.headers:
            return await passthrough.relay(request, answer, {})
        with self._memory.share() as share:
            try:
                body = await share.read(answer)
            except ClientError as error:
                raise Refused(
                    502, "cluster_connection_exception", f"the cluster's answer broke off: {error}"
                ) from error
            if body is None:
                return await passthrough.relay(request, answer, {}, begun=share.begun)
            answer.release()
            rewritten = await passthrough.aside(len(body), functools.partial(rewrite, body))
            return await passthrough.relay_body(request, answer, rewritten, {})

    async def _translated(
        self, request: web.BaseRequest, inbound: Inbound, sent: Share
    ) -> tuple[Inbound, Callable[[bytes], bytes] | None]:
        """The request of a client of Elasticsearch's as OpenSearch takes it, and what its answer becomes."""
        if inbound.method == hdrs.METH_GET and inbound.target == "/":
            return inbound, elasticsearch_clients.introduced
        if elasticsearch_clients.may_be_translated(inbound.target):
            inbound, body = await read_body(inbound, sent, limit=self._settings.max_search_body_bytes)
            if body is not None and (
                translation := elasticsearch_clients.translated(inbound.method, inbound.target, body)
            ):
                headers = inbound.headers.copy()
                for name in (hdrs.CONTENT_LENGTH, hdrs.CONTENT_ENCODING):
                    headers.popall(name, None)
                return replace(
                    inbound, target=translation.target, headers=headers, body=translation.body
                ), translation.answer
        has_body = inbound.method != hdrs.METH_HEAD
        if (
            has_body
            and request[passthrough.WANTS_TYPES]
            and elasticsearch_clients.answers_with_documents(inbound.target)
        ):
            return inbound, elasticsearch_clients.with_types
        return inbound, None

    @staticmethod
    def _refusal(refused: Refused, door: Door | None) -> web.Response:
        # What was wrong with a request may quote it, and with it a query: that is for the caller only.
        reason = {"reason": refused.reason} if refused.status >= 500 else {}
        log.info("refused", status=refused.status, kind=refused.kind, **reason)
        body = refused.body() if door is None else door.refusal(refused)
        response = web.Response(status=refused.status, body=body, content_type="application/json")
        if refused.status == 405:
            response.headers[hdrs.ALLOW] = ", ".join(door.methods if door is not None else (hdrs.METH_POST,))
        # The rest of the request may still be on its way, and must not be taken for the next one.
        response.force_close()
        return response


def _logged_with(request: web.BaseRequest) -> AbstractContextManager[None]:
    """Lets every log line of this request tell by what its client and its trace know it."""
    known = {"opaque_id": request.headers.get("X-Opaque-Id", "")[:_MAX_OPAQUE_ID], "trace_id": tracing.trace_id()}
    return structlog.contextvars.bound_contextvars(**{name: value for name, value in known.items() if value})


def _address(request: web.BaseRequest) -> str:
    """HOST:PORT by which this client reached the proxy."""
    host = request.host
    if host.rpartition("]")[2].rpartition(":")[1]:
        return host
    return f"{host}:{443 if request.secure else 80}"


class ConnectionServer(web.Server):
    """Makes a `Connection` for each client, and closes the longest idle one if there are too many.

    Attributes:
        draining: whether each connection ends with the next answer that begins.
    """

    def __init__(self, *args: Any, write_timeout_s: float, **kwargs: Any) -> None:
        """`write_timeout_s`: how long a client may leave a part of an answer where it is."""
        super().__init__(*args, request_factory=self._request, **kwargs)
        self.write_timeout_s = write_timeout_s
        self.draining = False
        # Each client's connection may need one to the cluster.
        descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.max_connections = max(_FEWEST_CONNECTIONS, (descriptors - _SPARE_DESCRIPTORS) // 2)

    def __call__(self) -> RequestHandler:
        if len(self._connections) >= self.max_connections:
            # In the order in which they were made; one that has no request has waited longest, or nearly so.
            idle = (each for each in self._connections if isinstance(each, Connection) and each.is_idle)
            if (longest := next(idle, None)) is not None:
                longest.force_close()
        return Connection(self, write_timeout_s=self.write_timeout_s, loop=self._loop, **self._kwargs)

    def _request(
        self,
        message: RawRequestMessage,
        payload: StreamReader,
        protocol: RequestHandler,
        writer: AbstractStreamWriter,
        task: asyncio.Task[None],
    ) -> web.BaseRequest:
        return _Request(message, payload, protocol, writer, task, self._loop)


class Connection(RequestHandler):
    """Reads requests as the cluster's nodes do: bytes beyond ASCII in a request line are a part of the target."""

    __slots__ = ("_body", "_line", "_write_timeout_s", "raw_targets")
    raw_targets: dict[str, str]
    """Targets of requests that wait or run, as they came, by their escaped form, unless both are alike."""

    def __init__(self, *args: Any, write_timeout_s: float, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._write_timeout_s = write_timeout_s
        # What came of a request line; None while the rest of a request is on its way.
        self._line: bytes | None = b""
        # Of the newest request whose head is whole.
        self._body: StreamReader | None = None
        self.raw_targets = {}

    @property
    def ends(self) -> bool:
        """Whether no further request is taken after this answer."""
        return isinstance(self._manager, ConnectionServer) and self._manager.draining

    @property
    def is_idle(self) -> bool:
        """Whether the connection waits for a next request."""
        return self._waiter is not None and not self._waiter.done() and not self._line

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Lets writers wait until the kernel has everything: a rest in the transport would outlive every deadline."""
        super().connection_made(transport)
        if self.transport is not None:
            self.transport.set_write_buffer_limits(high=1, low=0)

    async def _drain_helper(self) -> None:
        """Waits for a client to read, which all writes of answers do here, for so long and no longer."""
        try:
            async with asyncio.timeout(self._write_timeout_s):
                await super()._drain_helper()
        except TimeoutError:
            if self.transport is not None:
                self.transport.abort()
            raise ConnectionAbortedError("the client does not read its answer") from None

    def data_received(self, data: bytes) -> None:
        """Feeds the parser, which takes no bytes beyond ASCII in a target: they are escaped for it."""
        # A request may come before the last one's answer is written, or before the task that wrote it waits again.
        if self._line is None and self._body is not None and self._body.is_eof():
            self._line = b""
        if self._line is not None:
            part, end, rest = data.partition(b"\n")
            self._line += part
            if not part.isascii():
                data = _escaped(part) + end + rest
            if end:
                if not self._line.isascii():
                    self.raw_targets[_target(_escaped(self._line))] = _target(self._line)
                # An empty line before a request is none of it.
                self._line, self._body = None if self._line.strip() else b"", None
        n_waiting = len(self._messages)
        super().data_received(data)
        if len(self._messages) > n_waiting:
            self._line, self._body = None, self._messages[-1][1]

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """The error in the cluster's own words. Nothing of the request is quoted or logged: it may hold a query."""
        if request.writer.output_size > 0:
            raise ConnectionError("a part of the answer is sent already")
        if isinstance(exc, LineTooLong):
            refused = Refused(431, "too_long_http_header_exception", "a line of the request is too long")
        elif status < 500:
            refused = Refused(status, "illegal_argument_exception", "the request is malformed: expected HTTP/1.1")
        else:
            self.log_exception("request failed", exc_info=exc)
            refused = Refused(status, "internal_error", "a fault of the proxy itself: its log has the traceback")
        response = web.Response(status=refused.status, body=refused.body(), content_type="application/json")
        response.force_close()
        return response


class _Request(web.BaseRequest):
    @property
    def keep_alive(self) -> bool:
        """Whether the connection stays open after the answer; its headers say so."""
        return super().keep_alive and not (isinstance(self.protocol, Connection) and self.protocol.ends)


def _escaped(part: bytes) -> bytes:
    return b"".join(b"%%%02X" % byte if byte > 127 else bytes((byte,)) for byte in part)


def _target(line: bytes) -> str:
    """The second word of a request line."""
    return b"".join(line.split(b" ")[1:2]).decode("utf-8", "surrogateescape")
