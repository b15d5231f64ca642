"""A sidecar that is sound, or is not: it stands before a real one, and spoils its answers on demand."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Literal

import aiohttp
from aiohttp import web

from tests.served import served

Mode = Literal["sound", "slow", "wrong_lengths", "nan", "html", "cut", "endless"]
LIES: tuple[Mode, ...] = ("wrong_lengths", "nan", "html", "cut", "endless")
SLOW_S = 8.0
PIECE = b"[" * 65536
HTML = "<html><body>502 Bad Gateway</body></html>"


@dataclass
class SidecarFront:
    """`mode` is what happens to answers of models from now on; `answered` counts them by mode."""

    sidecar_url: str
    mode: Mode = "sound"
    answered: Counter[str] = field(default_factory=Counter)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[str]:
        """Its address, while the block runs."""
        app = web.Application(client_max_size=64 * 2**20)
        app.router.add_route("*", "/{path:.*}", self._answer)
        async with aiohttp.ClientSession() as self._http, served(app) as url:
            yield url

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        with suppress(ConnectionError):
            return await self._spoilt(request)
        return web.Response(status=502)

    async def _spoilt(self, request: web.Request) -> web.StreamResponse:
        mode = self.mode if request.method == "POST" else "sound"
        self.answered[mode] += 1
        if mode == "slow":
            await asyncio.sleep(SLOW_S)
        if mode == "html":
            return web.Response(text=HTML, content_type="text/html")
        if mode == "endless":
            return await _endless(request)
        try:
            async with self._http.request(
                request.method,
                f"{self.sidecar_url}{request.path_qs}",
                data=await request.read(),
                headers=_kept(request),
            ) as answer:
                status, content, content_type = answer.status, await answer.read(), answer.content_type
        except aiohttp.ClientError:
            mode, status, content, content_type = "cut", 502, b"", "text/plain"
        if mode == "cut" and request.transport is not None:
            request.transport.abort()
        if mode == "wrong_lengths":
            content = _changed(content, lambda values: values[: len(values) // 2])
        elif mode == "nan":
            content = _changed(content, lambda values: [_nan(value) for value in values])
        return web.Response(status=status, body=content, content_type=content_type)


def _kept(request: web.Request) -> dict[str, str]:
    return {
        name: request.headers[name] for name in ("Content-Type", "Accept", "Authorization") if name in request.headers
    }


async def _endless(request: web.Request) -> web.StreamResponse:
    answer = web.StreamResponse(headers={"Content-Type": "application/json"})
    await answer.prepare(request)
    while True:
        await answer.write(PIECE)
        await asyncio.sleep(0.01)


def _changed(content: bytes, change: Callable[[list[Any]], list[Any]]) -> bytes:
    """An answer whose lists, at the top or one level below, are changed."""
    try:
        tree = json.loads(content)
    except ValueError:
        return b"\x00" + content
    if isinstance(tree, list):
        tree = change(tree)
    elif isinstance(tree, dict):
        tree = {name: change(value) if isinstance(value, list) else value for name, value in tree.items()}
    return json.dumps(tree).encode()


def _nan(value: Any) -> Any:
    if isinstance(value, list):
        return [_nan(each) for each in value]
    if isinstance(value, dict):
        return {name: _nan(each) for name, each in value.items()}
    return float("nan") if isinstance(value, float) else value
