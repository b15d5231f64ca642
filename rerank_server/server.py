"""The sidecar as a process: it takes new models on SIGHUP, and stops on SIGTERM after what it has accepted."""

import asyncio
import signal
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog
from aiohttp import web

from bridge.certificates import ServerCertificate, renew
from bridge.errors import BridgeError
from bridge.http_deadlines import FirstRequestDeadline
from bridge.logs import write_json_lines
from bridge.settings import SidecarSettings
from rerank_server.app import Sidecar
from rerank_server.models import Models

HEADER_TIMEOUT_S = 10.0
LINGERING_S = 2.0
"""How long the rest of a refused body is read, so that the client sees the answer and not a reset."""

log = structlog.get_logger(__name__)


@asynccontextmanager
async def listening(
    settings: SidecarSettings, models: Models, *, tls: ssl.SSLContext | None = None
) -> AsyncIterator[tuple[Sidecar, int]]:
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
        await web.TCPSite(runner, settings.host, settings.port, ssl_context=tls).start()
        yield sidecar, runner.addresses[0][1]
        sidecar.draining = True
    finally:
        watch.cancel()
        await runner.cleanup()


async def serve(settings: SidecarSettings, models: Models) -> None:
    """Serves until SIGTERM or SIGINT.

    Raises:
        SettingsError: the certificate or its key cannot be used.
    """
    stopping, reloading = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    loop.add_signal_handler(signal.SIGHUP, reloading.set)
    certificate = ServerCertificate.of(settings, section="sidecar")
    async with listening(settings, models, tls=certificate.context if certificate else None) as (sidecar, port):
        log.info("listening", host=settings.host, port=port, tls=certificate is not None, models=models.identities)
        renewals = [asyncio.create_task(_reload(sidecar, reloading, certificate))]
        if certificate is not None:
            renewals.append(asyncio.create_task(renew(certificate.files, certificate.renew)))
        await stopping.wait()
        for renewal in renewals:
            renewal.cancel()
        log.info("stopping", shutdown_timeout_s=settings.shutdown_timeout_s)


def run(settings: SidecarSettings) -> None:
    """Loads the models and serves until a signal; logs are JSON lines on stderr.

    Raises:
        ModelError: a model cannot be used; nothing was served.
        SettingsError: the certificate or its key cannot be used; nothing was served.
    """
    write_json_lines()
    asyncio.run(serve(settings, Models.load(settings)))


async def _reload(sidecar: Sidecar, signalled: asyncio.Event, certificate: ServerCertificate | None) -> None:
    """At each SIGHUP, loads models and certificate again from where the settings have them, beside the requests.

    What cannot be used changes nothing: the old ones serve on.
    """
    while True:
        await signalled.wait()
        signalled.clear()
        try:
            models = await asyncio.to_thread(Models.load, sidecar.settings)
            if certificate is not None:
                certificate.renew()
        except BridgeError as error:
            log.warning("not reloaded", error=str(error))
        else:
            sidecar.use(models)
            log.info("reloaded", models=models.identities)
