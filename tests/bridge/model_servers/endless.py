"""A model server whose answers never end."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

from tests.served import served


async def _answer(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    while True:
        await response.write(b"[" * 65_536)


@asynccontextmanager
async def endless_server() -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_post("/{path:.*}", _answer)
    async with served(app) as url:
        yield url
