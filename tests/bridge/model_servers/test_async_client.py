"""The client of a search: every failure has a reason, and a failing server is left alone."""

import asyncio

import aiohttp
import msgspec
import pytest

from bridge.errors import NotTaken, StageFailed
from bridge.model_servers import async_client
from bridge.model_servers.async_client import CircuitBreaker, ModelStage
from tests.bridge.model_servers.endless import endless_server
from tests.bridge.proxy.scripted_models import scripted_models


def test_the_breaker_opens_lets_one_try_and_closes() -> None:
    now = 0.0
    breaker = CircuitBreaker(failures=2, reset_s=5.0, clock=lambda: now)
    breaker.failed()
    assert breaker.allows()

    breaker.failed()
    assert breaker.open
    assert not breaker.allows()
    now = 5.0
    assert [breaker.allows(), breaker.allows()] == [True, False]
    breaker.failed()
    assert not breaker.allows()
    now = 10.0
    assert breaker.allows()
    breaker.succeeded()
    assert [breaker.allows(), breaker.open] == [True, False]


def _stage(session: aiohttp.ClientSession, url: str) -> ModelStage:
    breaker = CircuitBreaker(failures=2, reset_s=60.0)
    return ModelStage(session, url, breaker, stage="embedder", span="embed", headers={}, send_deadline=True)


async def _failure(stage: ModelStage, *, within_s: float = 10.0) -> StageFailed:
    with pytest.raises(StageFailed) as failed:
        await stage.ask({"inputs": ["cat"]}, msgspec.json.decode, deadline=asyncio.get_running_loop().time() + within_s)
    return failed.value


async def test_an_answer_is_read_and_the_sidecar_learns_the_deadline() -> None:
    async with scripted_models() as models, aiohttp.ClientSession() as session:
        stage = _stage(session, f"{models.url}/tei/embed")
        deadline = asyncio.get_running_loop().time() + 10
        rows = await stage.ask({"inputs": ["cat"]}, msgspec.json.decode, deadline=deadline)
        assert rows == [[3.0, 0.0, 4.0, 0.0]]
        assert 0 < int(models.received[0][1]["x-request-timeout-ms"]) <= 10_000


async def test_every_failure_has_a_reason_and_repeated_ones_open_the_breaker() -> None:
    async with scripted_models() as models, aiohttp.ClientSession() as session:
        models.failing = (429, {"error": "busy", "error_type": "Overloaded"})
        stage = _stage(session, f"{models.url}/tei/embed")
        assert (await _failure(stage, within_s=-1.0)).reason == "embedder_slow"
        assert (await _failure(stage)).reason == "embedder_overloaded"
        models.failing = (422, {"error": "no", "error_type": "Validation"})
        assert isinstance(await _failure(stage), NotTaken)
        models.failing = None
        assert "left alone" in str(await _failure(stage))
        assert len(models.received) == 2


@pytest.mark.case("P44")
async def test_an_answer_without_end_is_unusable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(async_client, "MAX_ANSWER_BYTES", 1_000_000)
    async with endless_server() as url, aiohttp.ClientSession() as session:
        failure = await _failure(_stage(session, f"{url}/embed"))
        assert (failure.reason, "longer than 1,000,000 bytes" in str(failure)) == ("embedder_unusable", True)
