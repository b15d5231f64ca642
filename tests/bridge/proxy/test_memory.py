"""What goes through the proxy does not stay in it: its process is no larger after a bulk request of 100 MB."""

import re
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from tests.bridge.proxy.server.test_process import proxy_process
from tests.fake_cluster import Received, Reply, fake_cluster

BULK_BYTES = 100_000_000
MAX_GROWTH_KB = 32_000
"""Buffers of both connections, and what Python's allocator keeps."""


def peak_kb(pid: int) -> int:
    """The most memory that a process ever held."""
    found = re.search(r"^VmHWM:\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1])


async def lines(n_bytes: int) -> AsyncIterator[bytes]:
    """A bulk body in pieces, each of them whole lines."""
    piece = (b'{"index":{}}\n{"title":"' + b"x" * 976 + b'"}\n') * 100
    for _ in range(n_bytes // len(piece)):
        yield piece


@pytest.mark.slow
@pytest.mark.case("P4")
@pytest.mark.parametrize("towards", ["the cluster", "the client"])
async def test_a_hundred_megabytes_pass_without_staying(towards: str) -> None:
    answer = b"y" * BULK_BYTES if towards == "the client" else b"{}"

    def script(request: Received) -> Reply:
        return Reply(body=answer if request.path == "/_bulk" else b"{}")

    async with (
        fake_cluster(script) as cluster,
        proxy_process(cluster.url, timeout_s=280) as (process, ready),
        aiohttp.ClientSession() as client,
    ):
        async with client.get(f"{ready['url']}/warm") as warm:
            await warm.read()
        before = peak_kb(process.pid)
        body = lines(BULK_BYTES if towards == "the cluster" else 200_000)
        received = 0
        async with client.post(f"{ready['url']}/_bulk", data=body) as answered:
            async for piece in answered.content.iter_any():
                received += len(piece)
        grown = peak_kb(process.pid) - before
        sent = len(cluster.received[-1].body)

    assert (received, sent >= 0.99 * BULK_BYTES) == (len(answer), towards == "the cluster")
    assert grown < MAX_GROWTH_KB
