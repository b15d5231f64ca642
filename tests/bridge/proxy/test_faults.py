"""Faults under load: no search fails that the cluster would have answered."""

import asyncio
import json
from collections import Counter
from statistics import median
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from bridge.proxy.search import MAX_UPGRADES
from tests.bridge.proxy.conftest import MakeStack, Stack
from tests.bridge.proxy.scripted_index import ScriptedIndex
from tests.fake_cluster import Received, Reply, kind_sidecar

REQUESTS_PER_S = 50
PHASE_S = 1.0
BUDGET_MS = 500


class FaultySidecar:
    """Serves as `mode` says: kind, slow, lying, or dead (breaks every connection)."""

    mode = "kind"

    async def __call__(self, path: str, body: dict[str, Any]) -> web.Response:
        """Answers one request."""
        if self.mode == "slow":
            await asyncio.sleep(5)
        if self.mode == "lying":
            return web.json_response([{"index": 99, "score": "high"}])
        if self.mode == "dead":
            raise web.HTTPServiceUnavailable
        return await kind_sidecar(path, body)


async def ask(stack: Stack, words: str) -> tuple[int, str, float]:
    """Status, what took part, and seconds; a broken connection is status 0."""
    loop = asyncio.get_running_loop()
    started = loop.time()
    body = json.dumps({"query": {"match": {"title": words}}})
    try:
        async with stack.client.post(
            f"{stack.proxy.url}/docs/_search", data=body, headers={"Content-Type": "application/json"}
        ) as answer:
            await answer.read()
            return answer.status, answer.headers.get("X-Bridge", ""), loop.time() - started
    except aiohttp.ClientError:
        return 0, "", loop.time() - started


async def under_load(stack: Stack, name: str) -> list[tuple[int, str, float]]:
    """The answers to one phase of steady load; every question is new, so that no cache helps."""
    asked = []
    for i in range(int(REQUESTS_PER_S * PHASE_S)):
        asked.append(asyncio.create_task(ask(stack, f"red shoe {name} {i}")))
        await asyncio.sleep(1 / REQUESTS_PER_S)
    return await asyncio.gather(*asked)


@pytest.mark.slow
@pytest.mark.case("P13")
@pytest.mark.case("P14")
async def test_no_search_fails_while_the_sidecar_does(make_stack: MakeStack) -> None:
    sidecar = FaultySidecar()
    stack = await make_stack(ScriptedIndex(), sidecar, budget_ms=BUDGET_MS, breaker_reset_s=0.3)
    marks: dict[str, Counter[str]] = {}
    for phase, mode in enumerate(["kind", "dead", "slow", "lying", "kind"]):
        sidecar.mode = mode
        answers = await under_load(stack, f"{mode} {phase}")

        assert {status for status, _, _ in answers} == {200}, mode
        assert max(seconds for _, _, seconds in answers) < 4 * BUDGET_MS / 1000, mode
        marks[f"{mode} {phase}"] = Counter(mark.partition(";")[0] for _, mark, _ in answers)
        await asyncio.sleep(0.4)

    assert marks["kind 0"].keys() <= {"hybrid+rerank", "pass"}
    for mode in ("dead 1", "slow 2", "lying 3"):
        assert marks[mode].keys() <= {"expansion", "hybrid", "pass"}, mode
    assert "hybrid+rerank" in marks["kind 4"]


@pytest.mark.slow
@pytest.mark.case("P17")
async def test_searches_fail_only_while_the_cluster_is_away(make_stack: MakeStack) -> None:
    index = ScriptedIndex()
    away = False

    def script(request: Received) -> Reply:
        return Reply(break_after=0) if away else index(request)

    stack = await make_stack(script, budget_ms=BUDGET_MS)
    before = await under_load(stack, "before")
    away = True
    during = await under_load(stack, "during")
    away = False
    after = await under_load(stack, "after")

    assert {status for status, _, _ in before} == {200}
    assert {status for status, _, _ in during} == {502}
    assert {status for status, _, _ in after} == {200}


@pytest.mark.case("P28")
async def test_beyond_what_can_be_upgraded_searches_pass(make_stack: MakeStack) -> None:
    sidecar = FaultySidecar()
    sidecar.mode = "slow"
    stack = await make_stack(ScriptedIndex(), sidecar, budget_ms=2000, breaker_failures=1000)

    answers = await asyncio.gather(*(ask(stack, f"red shoe {i}") for i in range(5 * MAX_UPGRADES)))

    assert {status for status, _, _ in answers} == {200}
    passed = [seconds for _, mark, seconds in answers if mark == "pass; reason=busy"]
    upgraded = [seconds for _, mark, seconds in answers if mark != "pass; reason=busy"]
    assert len(passed) == 4 * MAX_UPGRADES
    assert median(passed) < median(upgraded)
    sidecar.mode = "kind"
    _, mark, _ = await ask(stack, "red shoe again")
    assert mark.startswith("hybrid+rerank")
