"""Faults under load: no search fails that the cluster would have answered."""

import asyncio
import json
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from bridge.proxy.upgrade.search import MAX_UPGRADES
from tests.bridge.proxy.conftest import MakeStack, Stack
from tests.bridge.proxy.scripted_index import ScriptedIndex
from tests.fake_cluster import Received, Reply, kind_sidecar

REQUESTS_PER_S = 50
PHASE_S = 1.0
BUDGET_MS = 500


class FaultySidecar:
    """Serves as `mode` says: kind, lying, dead (answers nothing but errors), or held: nothing until it is another."""

    mode = "kind"

    def __init__(self) -> None:
        self.held = 0
        self._changed = asyncio.Condition()

    async def become(self, mode: str) -> None:
        """Changes the mode; what was held is answered in the new one."""
        async with self._changed:
            self.mode = mode
            self._changed.notify_all()

    async def holds(self, n_requests: int) -> None:
        """Returns when so many requests are held."""
        async with self._changed:
            await self._changed.wait_for(lambda: self.held >= n_requests)

    async def __call__(self, path: str, body: dict[str, Any]) -> web.Response:
        """Answers one request."""
        async with self._changed:
            self.held += 1
            self._changed.notify_all()
            try:
                await self._changed.wait_for(lambda: self.mode != "held")
            finally:
                self.held -= 1
        if self.mode == "lying":
            return web.json_response([{"index": 99, "score": "high"}])
        if self.mode == "dead":
            raise web.HTTPServiceUnavailable
        return await kind_sidecar(path, body)


async def ask(stack: Stack, words: str) -> tuple[int, str]:
    """Status and what took part; a broken connection is status 0."""
    body = json.dumps({"query": {"match": {"title": words}}})
    try:
        async with stack.client.post(
            f"{stack.proxy.url}/docs/_search", data=body, headers={"Content-Type": "application/json"}
        ) as answer:
            await answer.read()
            return answer.status, answer.headers.get("X-Bridge", "")
    except aiohttp.ClientError:
        return 0, ""


async def under_load(stack: Stack, name: str) -> list[tuple[int, str]]:
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
    for phase, mode in enumerate(["kind", "dead", "held", "lying"]):
        await sidecar.become(mode)
        # That the phase ends at all while requests are held proves that the budget is kept.
        answers = await under_load(stack, f"{mode} {phase}")

        assert {status for status, _ in answers} == {200}, mode
        assert mode == "kind" or not any("rerank" in mark.partition(";")[0] for _, mark in answers), mode

    await sidecar.become("kind")
    again = 0
    while not (await ask(stack, f"red shoe again {again}"))[1].startswith("hybrid+rerank"):
        again += 1


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

    assert {status for status, _ in before} == {200}
    assert {status for status, _ in during} == {502}
    assert {status for status, _ in after} == {200}


@pytest.mark.case("P28")
async def test_beyond_what_can_be_upgraded_searches_pass(make_stack: MakeStack) -> None:
    sidecar = FaultySidecar()
    # Nobody's budget may run out while the others ask.
    stack = await make_stack(ScriptedIndex(), sidecar, budget_ms=600_000)
    await sidecar.become("held")

    upgraded = [asyncio.create_task(ask(stack, f"red shoe {i}")) for i in range(MAX_UPGRADES)]
    await sidecar.holds(MAX_UPGRADES)
    beyond = await asyncio.gather(*(ask(stack, f"red shoe {i}") for i in range(MAX_UPGRADES, 5 * MAX_UPGRADES)))

    assert set(beyond) == {(200, "pass; reason=busy")}
    await sidecar.become("kind")
    for status, mark in (*await asyncio.gather(*upgraded), await ask(stack, "red shoe again")):
        assert status == 200
        assert mark.startswith("hybrid+rerank")
