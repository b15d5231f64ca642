"""The proxy's two listeners: one for applications, one for operators."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from types import ModuleType

from aiohttp import http_parser, web
from opentelemetry.trace import Tracer

from bridge.certificates import ServerCertificate, renew
from bridge.errors import UsageError
from bridge.http_deadlines import FirstRequestDeadline
from bridge.proxy.doors.model_context import ModelContext
from bridge.proxy.doors.openai_api import OpenAI
from bridge.proxy.server.admin import admin_app
from bridge.proxy.server.metrics import Metrics
from bridge.proxy.server.routing import ConnectionServer, Proxy
from bridge.proxy.transport.passthrough import AnswerMemory
from bridge.proxy.transport.upstream import Upstream
from bridge.proxy.upgrade.answer import Composer
from bridge.proxy.upgrade.cluster_client import OwnSearches
from bridge.proxy.upgrade.model_client import Sidecar
from bridge.proxy.upgrade.planning import Planner
from bridge.proxy.upgrade.ranking import Ranker, RankingCache
from bridge.proxy.upgrade.retrieve import Retrieval
from bridge.proxy.upgrade.search import Search
from bridge.proxy.upgrade.sentences import Sentences
from bridge.proxy.upgrade.suggest import Suggest
from bridge.settings import ProxySettings, Settings

MAX_HEADER_BYTES = 16 * 1024
"""As OpenSearch allows: large tokens have to pass."""
READ_BUFFER_BYTES = 256 * 1024
"""Of one connection; as much as one read of the socket gives, so that large uploads are not held up by each."""
LINGERING_S = 2.0
"""How long a client that was answered early may go on sending before its connection is closed."""


class RunningProxy:
    """A proxy that listens; `port` and `admin_port` are the ones in use."""

    def __init__(
        self, server: ConnectionServer, data: web.ServerRunner, admin: web.AppRunner, settings: Settings
    ) -> None:
        self._server = server
        self.host = settings.proxy.host
        self.port = _port(data)
        self._scheme = "https" if settings.proxy.tls_certificate_file is not None else "http"
        self.admin_host = settings.proxy.admin_host
        self.admin_port = _port(admin)

    @property
    def url(self) -> str:
        """Address for applications."""
        return f"{self._scheme}://{self.host}:{self.port}"

    @property
    def admin_url(self) -> str:
        """Address for operators."""
        return f"http://{self.admin_host}:{self.admin_port}"

    @property
    def was_asked(self) -> bool:
        """Whether any application has sent a request."""
        return self._server.requests_count > 0

    def drain(self) -> None:
        """Says that it is not ready any more, and ends each connection with its next answer. It still takes new ones:
        a load balancer needs a while to notice."""
        self._server.draining = True


@asynccontextmanager
async def running(settings: Settings, *, tracer: Tracer | None = None) -> AsyncIterator[RunningProxy]:
    """Listens while the block runs, then finishes the requests that were accepted. `tracer` records spans.

    Raises:
        UsageError: an address cannot be listened on, or aiohttp runs without its C parser.
        SettingsError: a setting cannot be used.
    """
    assert_c_parser(http_parser)
    metrics = Metrics()
    certificate = ServerCertificate.of(settings.proxy, section="proxy")
    tls = certificate.context if certificate else None
    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(
            Upstream(settings.cluster, settings.proxy.further_nodes, read_timeout_s=settings.proxy.read_timeout_s)
        )
        sidecar = await stack.enter_async_context(Sidecar(settings))
        memory = AnswerMemory(settings.proxy.upgrade_memory_bytes)
        planner = Planner(upstream, memory, settings)
        searches = OwnSearches(upstream, memory, settings)
        ranker = Ranker(searches, sidecar)
        rankings = RankingCache(ranker, settings.proxy, metrics)
        composer = Composer(searches, Sentences(searches, ranker, sidecar))
        search = Search(upstream, planner, rankings, composer, memory, settings.proxy, metrics)
        stack.push_async_callback(search.close)
        retrieval = Retrieval(planner, rankings, ranker, searches, settings.proxy, metrics)
        doors = (
            retrieval,
            Suggest(planner, searches, settings.proxy),
            ModelContext(retrieval, settings.proxy),
            OpenAI(retrieval, sidecar, settings),
        )
        deadline = FirstRequestDeadline(settings.proxy.header_timeout_s)
        proxy = Proxy(upstream, memory, search, doors, deadline, settings.proxy, metrics, tracer)
        server = _data_server(proxy, settings.proxy)
        data = web.ServerRunner(server, shutdown_timeout=settings.proxy.shutdown_timeout_s)
        operators = admin_app(upstream, sidecar, settings, metrics, proxy, server)
        admin = _admin_server(proxy, operators, settings.proxy)
        await _listen(stack, admin, settings.proxy.admin_host, settings.proxy.admin_port)
        await _listen(stack, data, settings.proxy.host, settings.proxy.port, tls=tls, share=settings.proxy.share_port)
        watching = [asyncio.create_task(deadline.watch(data))]
        if certificate is not None:
            watching.append(asyncio.create_task(renew(certificate.files, certificate.renew)))
        try:
            yield RunningProxy(server, data, admin, settings)
        finally:
            server.draining = True
            for task in watching:
                task.cancel()


def _data_server(proxy: Proxy, settings: ProxySettings) -> ConnectionServer:
    return ConnectionServer(
        proxy,
        write_timeout_s=settings.answer_idle_timeout_s,
        keepalive_timeout=settings.idle_timeout_s,
        # A client that left needs no answer: its request to the cluster is cancelled.
        handler_cancellation=True,
        auto_decompress=False,
        access_log=None,
        lingering_time=LINGERING_S,
        max_line_size=MAX_HEADER_BYTES,
        max_field_size=MAX_HEADER_BYTES,
        read_bufsize=READ_BUFFER_BYTES,
    )


def _admin_server(proxy: Proxy, app: web.Application, settings: ProxySettings) -> web.AppRunner:
    proxy.add_routes(app.router)
    return web.AppRunner(app, access_log=None, shutdown_timeout=1.0, keepalive_timeout=settings.idle_timeout_s)


async def _listen(
    stack: AsyncExitStack,
    runner: web.BaseRunner,
    host: str,
    port: int,
    *,
    tls: ssl.SSLContext | None = None,
    share: bool = False,
) -> None:
    """Listens until the stack unwinds.

    Raises:
        UsageError: the address cannot be listened on.
    """
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    try:
        await web.TCPSite(runner, host, port, ssl_context=tls, reuse_port=share or None).start()
    except OSError as error:
        raise UsageError(
            f"the proxy cannot listen on {host}:{port} ({error.strerror}): choose another port, or 0 for a free one"
        ) from error


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


def _port(runner: web.BaseRunner) -> int:
    with contextlib.suppress(IndexError):
        return int(runner.addresses[0][1])
    return 0
