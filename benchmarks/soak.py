"""`scripts/bench proxy --soak 100000`: does the proxy's memory stay flat over so many requests of all kinds?"""

import asyncio
import itertools
import random
from collections.abc import Callable, Iterator

import aiohttp
import click

from benchmarks.proxy_stack import INDEX, SEED, application_query, embedder, fill, proxy_process, resident_mb, words
from bridge.search import json_tree

CONNECTIONS = 8
STEPS = 10
DOCUMENTS = 500
BULK_DOCUMENTS = 20
PASSED_PER_UPGRADED = 3
"""How often the kinds that pass come for each that is upgraded."""
SETTINGS = {"BRIDGE_PROXY__RANKING_TTL_S": "60"}
"""With all that the proxy keeps in memory in use."""

Request = tuple[str, str, bytes, dict[str, str], int]
"""Method, target, body, headers, and the status that is expected."""


async def soaked(cluster_url: str, n_requests: int) -> list[float]:
    """Resident megabytes of the proxy: at the start, and after each tenth of the requests."""
    chance = random.Random(SEED)
    await asyncio.to_thread(fill, cluster_url, chance, DOCUMENTS)
    async with (
        embedder() as sidecar_url,
        proxy_process(cluster_url, sidecar_url, SETTINGS) as (proxy_url, pid),
        aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=CONNECTIONS), timeout=aiohttp.ClientTimeout()
        ) as session,
    ):
        measured = [resident_mb(pid)]
        kinds = _kinds(chance)
        for _ in range(STEPS):
            step = itertools.islice(kinds, n_requests // STEPS)
            await asyncio.gather(*(_ask(session, proxy_url, step) for _ in range(CONNECTIONS)))
            measured.append(resident_mb(pid))
            click.echo(f"{n_requests // STEPS * (len(measured) - 1):>8} requests  {measured[-1]:6.1f} MB", err=True)
    return measured


async def _ask(session: aiohttp.ClientSession, proxy_url: str, requests: Iterator[Request]) -> None:
    """Sends requests until none is left; several of these share one iterator."""
    for method, target, body, headers, expected in requests:
        async with session.request(method, proxy_url + target, data=body, headers=headers) as answer:
            content = await answer.read()
            if answer.status != expected:
                raise click.ClickException(f"{method} {target} answered {answer.status}: {content[:300]!r}")


def _kinds(chance: random.Random) -> Iterator[Request]:
    """Requests of an application's day, each kind in turn, other words each time."""
    as_json = {"Content-Type": "application/json"}
    as_lines = {"Content-Type": "application/x-ndjson"}

    def query() -> bytes:
        return json_tree.write(application_query(chance))

    def page_2(asked: bytes) -> bytes:
        return json_tree.write({**json_tree.read(asked), "from": 10})

    def bulk() -> bytes:
        line = json_tree.write({"index": {"_id": str(chance.randrange(1000))}})
        return b"".join(
            line + b"\n" + json_tree.write({"text": words(chance, 20)}) + b"\n" for _ in range(BULK_DOCUMENTS)
        )

    search = f"/{INDEX}/_search"
    upgraded: list[Callable[[bytes], Request]] = [
        lambda asked: ("POST", search, asked, as_json | {"x-bridge": "hybrid"}, 200),
        lambda asked: ("POST", search, page_2(asked), as_json | {"x-bridge": "hybrid"}, 200),
        lambda asked: ("POST", search, asked, as_json | {"x-bridge": "hybrid, explain"}, 200),
        lambda asked: (
            "POST",
            f"/{INDEX}/_msearch",
            (b"{}\n" + asked + b"\n") * 2,
            as_lines | {"x-bridge": "hybrid"},
            200,
        ),
    ]
    passed: list[Callable[[bytes], Request]] = [
        lambda asked: ("POST", search, asked, as_json | {"x-bridge": "off"}, 200),
        lambda _: ("POST", search, b'{"query":{"nonsense":{}}}', as_json, 400),
        lambda _: ("POST", f"/{INDEX}-bulk/_bulk", bulk(), as_lines, 200),
        lambda _: ("GET", f"/{INDEX}/_doc/1", b"", {}, 200),
        lambda _: ("GET", f"/{INDEX}/_doc/absent", b"", {}, 404),
        lambda _: ("HEAD", f"/{INDEX}", b"", {}, 200),
        lambda _: ("GET", f"/{INDEX}/_mapping", b"", {}, 200),
        lambda _: ("PUT", "/_bridge/nonsense", b"{}", {"Connection": "authorization"}, 400),
    ]
    while True:
        asked = query()
        yield from (make(asked) for make in (*upgraded, *passed * PASSED_PER_UPGRADED))
