"""The process ends when it is asked to, after the requests that it accepted."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from tests.fake_cluster import Reply, fake_cluster


@asynccontextmanager
async def proxy_process(
    cluster_url: str, *, timeout_s: float = 60.0
) -> AsyncIterator[tuple[asyncio.subprocess.Process, dict[str, Any]]]:
    """`neural-bridge serve proxy` and its first log line; the block may take `timeout_s`."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "bridge.cli", "serve", "proxy", "--port", "0", "--admin-port", "0", "--cluster", cluster_url),
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "BRIDGE_PROXY__SHUTDOWN_TIMEOUT_S": "10"},
    )
    try:
        assert process.stderr is not None
        async with asyncio.timeout(timeout_s):
            yield process, json.loads(await process.stderr.readline())
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@pytest.mark.case("P32")
async def test_accepted_requests_are_finished_and_no_others_taken() -> None:
    async with (
        fake_cluster(lambda _: Reply(body=b"done", delay_s=1.5)) as cluster,
        proxy_process(cluster.url) as (process, ready),
        aiohttp.ClientSession() as client,
    ):

        async def ask() -> tuple[int, bytes]:
            async with client.get(f"{ready['url']}/slow") as answer:
                return answer.status, await answer.read()

        asked = [asyncio.create_task(ask()) for _ in range(20)]
        async with asyncio.timeout(20):
            await cluster.has_received(20)
        process.send_signal(signal.SIGTERM)

        assert await asyncio.gather(*asked) == [(200, b"done")] * 20
        assert await process.wait() == 0
        with pytest.raises(aiohttp.ClientConnectorError):
            await ask()
