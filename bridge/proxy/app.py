"""The proxy's two listeners: one for applications, one for operators."""

import asyncio
import contextlib
import gc
import logging
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from types import ModuleType

import structlog
from aiohttp import http_parser, web
from pydantic import SecretStr

from bridge.errors import UsageError
from bridge.http_deadlines import FirstRequestDeadline, SlowClient
from bridge.proxy import passthrough
from bridge.proxy.admin import admin_app
from bridge.proxy.composing import Composer
from bridge.proxy.metrics import Metrics
from bridge.proxy.own_searches import OwnSearches
from bridge.proxy.planning import Planner
from bridge.proxy.profiles import Profiles
from bridge.proxy.ranking import Ranker
from bridge.proxy.refusals import Refused
from bridge.proxy.search import MARK, Search, search_target
from bridge.proxy.shadow import Shadow
from bridge.proxy.sidecar import Sidecar
from bridge.proxy.upstream import Upstream
from bridge.settings import Settings

log = structlog.get_logger(__name__)

MAX_HEADER_BYTES = 16 * 1024
"""As OpenSearch allows: large tokens have to pass."""
READ_BUFFER_BYTES = 256 * 1024
"""Of one connection; as much as one read of the socket gives, so that large uploads are not held up by each."""
LINGERING_S = 2.0
"""How long a client that was answered early may go on sending before its connection is closed."""


class Proxy:
    """Answers every request of the data listener."""

    def __init__(
        self,
        upstream: Upstream,
        search: Search,
        deadline: FirstRequestDeadline,
        settings: Settings,
        metrics: Metrics,
    ) -> None:
        self._upstream = upstream
        self._deadline = deadline
        self._search = search
        self._settings = settings.proxy
        self._metrics = metrics

    async def __call__(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answers one request: a search perhaps better, everything else as the cluster does."""
        started = asyncio.get_running_loop().time()
        self._deadline.asked(request)
        route = "other"
        decision = "refuse"
        status = 499  # the client left before there was an answer
        self._metrics.in_flight.inc()
        try:
            asked = passthrough.inbound(request, body_idle_timeout_s=self._settings.body_idle_timeout_s)
            passthrough.invite_body(request)
            if (target := search_target(asked.method, asked.target)) is not None:
                route = "search"
                response = await self._search.answer(request, asked, target)
                decision = "pass" if response.headers.get(MARK, "pass").startswith("pass") else "upgrade"
            else:
                decision = "pass"
                response = await passthrough.relay(request, await passthrough.send(self._upstream, asked), {})
            status = response.status
            return response
        except Refused as refused:
            decision = "refuse"
            status = refused.status
            return self._refusal(refused)
        except SlowClient as slow:
            status = 408
            return self._refusal(Refused(status, "request_timeout_exception", str(slow)))
        except web.RequestPayloadError as malformed:
            status = 400
            return self._refusal(Refused(status, "illegal_argument_exception", f"the body is malformed: {malformed}"))
        finally:
            self._metrics.in_flight.dec()
            self._metrics.requests.labels(route, decision, str(status)).inc()
            self._metrics.duration.labels(decision).observe(asyncio.get_running_loop().time() - started)

    @staticmethod
    def _refusal(refused: Refused) -> web.Response:
        log.info("refused", status=refused.status, kind=refused.kind, reason=refused.reason)
        response = web.Response(status=refused.status, body=refused.body(), content_type="application/json")
        # The rest of the request may still be on its way, and must not be taken for the next one.
        response.force_close()
        return response


class RunningProxy:
    """A proxy that listens; `port` and `admin_port` are the ones in use."""

    def __init__(self, data: web.ServerRunner, admin: web.AppRunner, settings: Settings) -> None:
        self.host = settings.proxy.host
        self.port = _port(data)
        self.admin_host = settings.proxy.admin_host
        self.admin_port = _port(admin)

    @property
    def url(self) -> str:
        """Address for applications."""
        return f"http://{self.host}:{self.port}"

    @property
    def admin_url(self) -> str:
        """Address for operators."""
        return f"http://{self.admin_host}:{self.admin_port}"


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[RunningProxy]:
    """Listens while the block runs, then finishes the requests that were accepted.

    Raises:
        UsageError: an address cannot be listened on, or aiohttp runs without its C parser.
        SettingsError: a setting cannot be used.
    """
    assert_c_parser(http_parser)
    metrics = Metrics()
    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(Upstream(settings.cluster, settings.proxy.further_nodes))
        sidecar = await stack.enter_async_context(Sidecar(settings.proxy, api_key=_secret(settings.sidecar.api_key)))
        profiles = Profiles(upstream, settings.cluster, ttl_s=settings.proxy.profile_ttl_s)
        planner = Planner(profiles, budget_s=settings.proxy.budget_ms / 1000)
        searches = OwnSearches(upstream)
        composer = Composer(Ranker(searches, sidecar), searches)
        shadow = Shadow(composer, metrics)
        stack.push_async_callback(shadow.close)
        search = Search(upstream, planner, composer, shadow, settings.proxy, metrics)
        deadline = FirstRequestDeadline(settings.proxy.header_timeout_s)
        proxy = Proxy(upstream, search, deadline, settings, metrics)
        data = web.ServerRunner(
            web.Server(
                proxy,
                # A client that left needs no answer: its request to the cluster is cancelled.
                handler_cancellation=True,
                auto_decompress=False,
                access_log=None,
                lingering_time=LINGERING_S,
                max_line_size=MAX_HEADER_BYTES,
                max_field_size=MAX_HEADER_BYTES,
                read_bufsize=READ_BUFFER_BYTES,
            ),
            shutdown_timeout=settings.proxy.shutdown_timeout_s,
        )
        operators = admin_app(upstream, sidecar, settings, metrics, answer=proxy)
        admin = web.AppRunner(operators, access_log=None, shutdown_timeout=1.0)
        for runner, host, port in (
            (admin, settings.proxy.admin_host, settings.proxy.admin_port),
            (data, settings.proxy.host, settings.proxy.port),
        ):
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            try:
                await web.TCPSite(runner, host, port).start()
            except OSError as error:
                raise UsageError(
                    f"the proxy cannot listen on {host}:{port} ({error.strerror}): choose another port, "
                    f"or 0 for a free one"
                ) from error
        watching = asyncio.create_task(deadline.watch(data))
        try:
            yield RunningProxy(data, admin, settings)
        finally:
            watching.cancel()


def run(settings: Settings) -> None:
    """Runs the proxy until SIGTERM or SIGINT, then lets accepted requests finish."""
    configure_logging()
    asyncio.run(_serve(settings))


async def _serve(settings: Settings) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with running(settings) as proxy:
        # What is there now stays: the collector need not look through it again while a request waits.
        gc.collect()
        gc.freeze()
        log.info("proxy ready", url=proxy.url, admin_url=proxy.admin_url, cluster=settings.cluster.url)
        await stop.wait()
        log.info("proxy stopping", grace_s=settings.proxy.shutdown_timeout_s)


def configure_logging() -> None:
    """JSON lines on stderr."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


def assert_c_parser(parser: ModuleType) -> None:
    """Refuses aiohttp's parser in Python: it is slower, and let more malformed requests through.

    Raises:
        UsageError: the C parser is missing.
    """
    if parser.HttpRequestParser is parser.HttpRequestParserPy:
        raise UsageError(
            "aiohttp runs without its C parser, which the proxy needs: install aiohttp from a wheel, "
            "and leave AIOHTTP_NO_EXTENSIONS unset"
        )


def _secret(value: SecretStr | None) -> str | None:
    return value.get_secret_value() if value is not None else None


def _port(runner: web.BaseRunner) -> int:
    with contextlib.suppress(IndexError):
        return int(runner.addresses[0][1])
    return 0
