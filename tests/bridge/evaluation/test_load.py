"""Several clients at once, against a server that answers by script."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager

import msgspec
from aiohttp import web

from bridge.evaluation.application_query import multi_match
from bridge.evaluation.load import SIZE, put_under_load
from tests.served import served

Handler = Callable[[web.Request], Awaitable[web.Response]]


def answering(handler: Handler) -> AbstractAsyncContextManager[str]:
    app = web.Application()
    app.router.add_post("/products/_search", handler)
    return served(app)


async def test_every_client_searches_and_what_falls_short_is_counted() -> None:
    asked: list[tuple[str, int]] = []
    at_once, most_at_once = 0, 0

    async def answer(request: web.Request) -> web.Response:
        nonlocal at_once, most_at_once
        at_once += 1
        most_at_once = max(most_at_once, at_once)
        body = msgspec.json.decode(await request.read())
        text = body["query"]["multi_match"]["query"]
        asked.append((text, body["size"]))
        await asyncio.sleep(0.01)
        at_once -= 1
        if text == "wrong":
            return web.Response(status=400)
        marker = "hybrid; degraded=rerank_slow" if text == "slow" else f"{request.headers['x-bridge']}; took_ms=1"
        return web.json_response({"hits": {"hits": []}}, headers={"X-Bridge": marker})

    async with answering(answer) as url:
        texts = ["right", "slow", "wrong", "right"]
        body_of = multi_match(["text"])
        result = await put_under_load(url, "products", texts, stage="rerank", body_of=body_of, clients=3, seconds=0.5)
    n_warm_up = 1 + 3
    counted = asked[n_warm_up:]
    assert (result.stage, result.clients, result.searches) == ("rerank", 3, len(counted))
    assert result.failed == sum(text == "wrong" for text, _ in counted)
    assert result.degraded == sum(text == "slow" for text, _ in counted)
    assert {size for _, size in asked} == {SIZE}
    assert most_at_once > 1
    assert 0 < result.p50_ms <= result.p95_ms <= result.p99_ms
    assert result.per_second > 0


async def test_what_an_earlier_load_left_out_is_waited_for() -> None:
    asked = 0

    async def answer(_: web.Request) -> web.Response:
        nonlocal asked
        asked += 1
        marker = "hybrid; degraded=rerank_breaker_open" if asked < 3 else "hybrid+rerank"
        return web.json_response({"hits": {"hits": []}}, headers={"X-Bridge": marker})

    async with answering(answer) as url:
        result = await put_under_load(
            url, "products", ["x"], stage="rerank", body_of=multi_match(["text"]), clients=1, seconds=0.05
        )
    assert result.searches > 0
    assert result.degraded == 0


async def test_a_server_that_is_gone_fails_every_search() -> None:
    async def never(_: web.Request) -> web.Response:
        raise AssertionError("the server is gone")

    async with answering(never) as url:
        pass
    result = await put_under_load(
        url, "products", ["x"], stage="hybrid", body_of=multi_match(["text"]), clients=1, seconds=0.05
    )
    assert result.failed == result.searches > 0
    assert result.p95_ms == 0.0
