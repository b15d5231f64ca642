"""Requests of the proxy's benchmark: sent, timed, and counted."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import aiohttp
import click

CONNECTIONS = 16
THROUGHPUT_WINDOW_S = 2.0
PIECE_BYTES = 256 * 1024
LARGE_BYTES = 1_000_000

Ask = Callable[[], Awaitable[None]]
"""Sends a request and reads its answer."""


async def alternately(rounds: int, *asks: Ask, warm_up: int) -> list[list[float]]:
    """Milliseconds of each, the first `warm_up` rounds left out, taken in turn so that both meet the same machine."""
    taken: list[list[float]] = [[] for _ in asks]
    for i in range(warm_up + rounds):
        for ask, durations in zip(asks, taken, strict=True):
            duration = await timed(ask)
            if i >= warm_up:
                durations.append(duration)
    return taken


async def rate(ask: Ask) -> float:
    """Requests per second at `CONNECTIONS` connections."""
    loop = asyncio.get_running_loop()
    started = loop.time()
    done = 0

    async def work() -> None:
        nonlocal done
        while loop.time() - started < THROUGHPUT_WINDOW_S:
            await ask()
            done += 1

    await asyncio.gather(*(work() for _ in range(CONNECTIONS)))
    return done / (loop.time() - started)


async def timed(ask: Ask) -> float:
    """Milliseconds of one."""
    loop = asyncio.get_running_loop()
    started = loop.time()
    await ask()
    return (loop.time() - started) * 1000


async def send(
    session: aiohttp.ClientSession, method: str, url: str, body: bytes, headers: dict[str, str] | None = None
) -> None:
    """Sends one request, a large body in pieces, and reads its answer.

    Raises:
        ClickException: it is no success.
    """
    given = {"Content-Type": "application/x-ndjson" if "_bulk" in url else "application/json", **(headers or {})}
    data = _pieces(body) if len(body) > LARGE_BYTES else body
    if data is not body:
        given["Content-Length"] = str(len(body))
    async with session.request(method, url, data=data, headers=given) as answer:
        content = await answer.read()
        if answer.status >= 300:
            raise click.ClickException(f"{method} {url} answered {answer.status}: {content[:300]!r}")


async def _pieces(body: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(body), PIECE_BYTES):
        yield body[start : start + PIECE_BYTES]
