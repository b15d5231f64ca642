"""A proxy's process sends its traces where the standard OTEL_* variables say, and runs on where it cannot."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from bridge.proxy.server import trace_export
from tests.fake_cluster import Reply, fake_cluster
from tests.served import served

WITHOUT_THE_EXTRA = "import sys; sys.modules['opentelemetry.sdk'] = None; from bridge.cli import main; main()"


@asynccontextmanager
async def collector() -> AsyncIterator[tuple[str, list[ExportTraceServiceRequest]]]:
    """An OTLP collector on a free port, and what it was sent."""
    received: list[ExportTraceServiceRequest] = []

    async def traces(request: web.Request) -> web.Response:
        received.append(ExportTraceServiceRequest.FromString(await request.read()))
        return web.Response(content_type="application/x-protobuf")

    app = web.Application()
    app.router.add_post("/v1/traces", traces)
    async with served(app) as url:
        yield url, received


async def serve_one_request(endpoint: str, *python: str) -> list[dict[str, Any]]:
    """The log of a proxy that answered one request and was told to stop."""
    async with fake_cluster(lambda _: Reply(body=b"answered")) as cluster:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *(*python, "serve", "proxy", "--port", "0", "--admin-port", "0", "--cluster", cluster.url),
            env={**os.environ, "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_SERVICE_NAME": "shop-search"},
            stderr=asyncio.subprocess.PIPE,
        )
        log: list[dict[str, Any]] = []
        try:
            assert process.stderr is not None
            async with asyncio.timeout(240):
                while not log or log[-1]["event"] != "proxy ready":
                    line = await process.stderr.readline()
                    assert line, log
                    log.append(json.loads(line))
                async with aiohttp.ClientSession() as client, client.get(f"{log[-1]['url']}/x") as answer:
                    assert await answer.read() == b"answered"
                process.send_signal(signal.SIGTERM)
                await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
            await process.communicate()
        assert process.returncode == 0
        return log


@pytest.mark.slow
async def test_spans_reach_the_collector_before_the_process_ends() -> None:
    async with collector() as (url, received):
        await serve_one_request(url, "-m", "bridge.cli")

    [resource] = [spans for request in received for spans in request.resource_spans]
    named = {attribute.key: attribute.value.string_value for attribute in resource.resource.attributes}
    assert named["service.name"] == "shop-search"
    [span] = [span for scope in resource.scope_spans for span in scope.spans]
    assert span.name == "GET"


@pytest.mark.slow
async def test_without_the_extra_the_proxy_says_what_to_install_and_runs() -> None:
    log = await serve_one_request("http://127.0.0.1:1", "-c", WITHOUT_THE_EXTRA)

    [warning] = [line for line in log if line["event"] == "no traces"]
    assert "opensearch-neural-bridge[otel]" in warning["remedy"]


@pytest.mark.parametrize(
    ("environment", "wanted"),
    [
        ({}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://collector:4318/v1/traces"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318", "OTEL_SDK_DISABLED": "true"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318", "OTEL_TRACES_EXPORTER": "none"}, False),
        ({"OTEL_SERVICE_NAME": "search"}, False),
    ],
)
def test_traces_are_made_where_the_environment_names_a_collector(environment: Mapping[str, str], wanted: bool) -> None:
    assert trace_export.wanted(environment) == wanted
