"""Several proxy processes on one port."""

import asyncio
import os
import re
import signal
import sys

import aiohttp
import pytest

from tests.fake_cluster import Reply, fake_cluster
from tests.servers import free_port


@pytest.mark.slow
async def test_workers_share_the_port_and_end_together() -> None:
    port = free_port()
    async with fake_cluster(lambda _: Reply(body=b"answered", delay_s=0.05)) as cluster:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "bridge.cli", "serve", "proxy", "--workers", "3", "--port", str(port), "--admin-port", "0"),
            *("--cluster", cluster.url),
            env={**os.environ, "BRIDGE_PROXY__SHUTDOWN_TIMEOUT_S": "10"},
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            assert process.stderr is not None
            async with asyncio.timeout(240):
                said = line = ""
                while not line.startswith("3 proxies answer"):
                    line = (await process.stderr.readline()).decode()
                    assert line, f"the proxies ended while they started: {said}"
                    said += line
            admins = set(re.findall(r"(http://[^/]+)/_bridge/health", line))
            served = 0
            process.send_signal(signal.SIGHUP)
            while "read again" not in line:
                line = (await process.stderr.readline()).decode()
                assert line, "a hangup ended the proxies"
            # A connection each, for the kernel to spread.
            async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as client:
                for _ in range(60):
                    async with client.get(f"http://127.0.0.1:{port}/x") as answer:
                        assert await answer.read() == b"answered"
                for admin in admins:
                    async with client.get(f"{admin}/_bridge/metrics") as answer:
                        served += 'code="200",decision="pass"' in await answer.text()
            assert len(admins) == 3
            assert served >= 2
            process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(60):
                await process.wait()
            with pytest.raises(aiohttp.ClientConnectorError):
                async with aiohttp.ClientSession() as client, client.get(f"http://127.0.0.1:{port}/x"):
                    pass
        finally:
            if process.returncode is None:
                process.kill()
            await process.communicate()
