"""The listening sidecar from its start to its end."""

import asyncio
from pathlib import Path

import pytest
from aiohttp import ClientConnectionError, ClientSession

from bridge.settings import SidecarSettings
from rerank_server.server import listening
from tests.rerank_server.running import toy_models


async def test_it_finishes_what_it_accepted_and_then_takes_nothing_more(tmp_path: Path) -> None:
    settings = SidecarSettings(port=0, threads=1)
    models = toy_models(tmp_path, slow_products=40)
    body = {"query": "cat", "documents": ["cat", "dog"] * 10}
    async with ClientSession() as session:
        async with listening(settings, models) as (sidecar, port):
            url = f"http://127.0.0.1:{port}/rerank"
            running = asyncio.create_task(session.post(url, json=body))
            while not sidecar.queue._admitted and not running.done():  # noqa: ASYNC110 - no event tells of it
                await asyncio.sleep(0.001)
        answer = await running
        assert (answer.status, len((await answer.json())["results"])) == (200, 20)
        assert sidecar.draining
        with pytest.raises(ClientConnectionError):
            await session.post(url, json=body)
