"""The proxy as a process of its own: its log, its signals, its end."""

import asyncio
import contextlib
import gc
import os
import signal

import structlog
import uvloop
from opentelemetry.trace import Tracer

from bridge.logs import write_json_lines
from bridge.proxy.server import trace_export
from bridge.proxy.server.app import running
from bridge.settings import Settings, masked

log = structlog.get_logger(__name__)


def run(settings: Settings) -> None:
    """Runs the proxy until SIGTERM or SIGINT, then lets accepted requests finish.

    After SIGTERM it is not ready any more, and still answers for a while; SIGINT, or a second signal, cuts that short.
    SIGHUP changes nothing: whoever sends it wants a configuration to be read again, not an outage.
    """
    write_json_lines()
    uvloop.run(_serve(settings))


async def _serve(settings: Settings) -> None:
    signals: asyncio.Queue[signal.Signals] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, signals.put_nowait, number)
    loop.add_signal_handler(signal.SIGHUP, log.info, "certificates and profiles are read again as they change")
    with trace_export.exporting(os.environ) as tracer:
        await _serve_until(signals, settings, tracer)


async def _serve_until(signals: asyncio.Queue[signal.Signals], settings: Settings, tracer: Tracer | None) -> None:
    async with running(settings, tracer=tracer) as proxy:
        # What is there now stays: the collector need not look through it again while a request waits.
        gc.collect()
        gc.freeze()
        log.info("proxy ready", url=proxy.url, admin_url=proxy.admin_url, cluster=masked(settings.cluster.url))
        first = await signals.get()
        # Nobody sends the next request to a proxy that nobody ever asked.
        drain_s = settings.proxy.drain_s if first == signal.SIGTERM and proxy.was_asked else 0.0
        log.info("proxy stopping", drain_s=drain_s, grace_s=settings.proxy.shutdown_timeout_s)
        proxy.drain()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(drain_s):
                await signals.get()
