"""The client of commands and ingest: it waits for a busy server, and reads no more than an answer can hold."""

import asyncio
import time

import pytest

from bridge.errors import ModelError, SidecarError, SidecarUnreachable
from bridge.model_servers import client
from bridge.model_servers.client import ModelServer, SidecarClient
from tests.bridge.model_servers.endless import endless_server
from tests.bridge.proxy.scripted_models import ScriptedModels, scripted_models


async def test_a_busy_server_is_asked_again_and_a_text_that_it_refuses_is_the_documents_fault() -> None:
    async with scripted_models() as models:
        server = ModelServer(models.url, retries=5, timeout_s=10)
        models.failing = (429, {"error": "Model is overloaded", "error_type": "Overloaded"})
        asked = asyncio.create_task(asyncio.to_thread(server.ask, "/tei/embed", {"inputs": ["cat"]}))
        await asyncio.to_thread(_wait_until_asked, models, 2)
        models.failing = None
        assert await asked == b"[[3.0, 0.0, 4.0, 0.0]]"
        models.failing = (413, {"error": "too long", "error_type": "Validation"})
        with pytest.raises(ModelError, match="status 413"):
            await asyncio.to_thread(server.ask, "/tei/embed", {"inputs": ["cat"]})


def _wait_until_asked(models: ScriptedModels, times: int) -> None:
    deadline = time.monotonic() + 30
    while len(models.received) < times:
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.case("P44")
async def test_an_answer_without_end_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "MAX_ANSWER_BYTES", 1_000_000)
    async with endless_server() as url:
        with pytest.raises(SidecarError, match="longer than 1,000,000 bytes"):
            await asyncio.to_thread(ModelServer(url, timeout_s=10).ask, "/embed", {"inputs": ["cat"]})


def test_a_server_that_is_not_there_is_unreachable() -> None:
    with pytest.raises(SidecarUnreachable, match="start it"):
        SidecarClient("http://127.0.0.1:9")
