"""Requests of the proxy's benchmark: sent, timed, and counted."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any

import aiohttp
import click

from bridge.profile import IndexProfile
from bridge.search import json_tree, legs
from bridge.search.request import SearchRequest

CONNECTIONS = 16
THROUGHPUT_WINDOW_S = 2.0
PIECE_BYTES = 256 * 1024
LARGE_BYTES = 1_000_000

Ask = Callable[[], Awaitable[object]]
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
) -> bytes:
    """Sends one request, a large body in pieces, and returns the body of its answer.

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
        return content


async def _pieces(body: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(body), PIECE_BYTES):
        yield body[start : start + PIECE_BYTES]


class BareClient:
    """What an application would have to do by itself: it embeds the query, sends the same searches at once that the
    proxy sends, fuses ranks in three lines, and fetches the hits that its own answer lacks. It checks nothing, keeps no
    deadline, and hides no field."""

    def __init__(self, session: aiohttp.ClientSession, index_url: str, sidecar_url: str, profile: IndexProfile) -> None:
        """`index_url` is the cluster's address with the index."""
        self._session = session
        self._index_url = index_url
        self._sidecar_url = sidecar_url
        self._profile = profile

    async def embed(self, text: str) -> list[float]:
        """The query's embedding, by the sidecar."""
        asked = json.dumps({"inputs": [text]}).encode()
        embeddings: list[list[float]] = json.loads(
            await send(self._session, "POST", f"{self._sidecar_url}/embed", asked)
        )
        return embeddings[0]

    async def search(self, body: Mapping[str, Any], request: SearchRequest) -> list[dict[str, Any]]:
        """The first page of the fused ranking; `request` is `body` as the bridge reads it."""
        own, found = await asyncio.gather(self.hits(body), self._of_legs(request))
        scores: dict[str, float] = {}
        for hits in found:
            for rank, hit in enumerate(hits, start=1):
                scores[hit["_id"]] = scores.get(hit["_id"], 0.0) + 1 / (60 + rank)
        page = sorted(scores, key=lambda doc_id: -scores[doc_id])[: request.size]
        shown = {hit["_id"]: hit for hit in own}
        if missing := [doc_id for doc_id in page if doc_id not in shown]:
            index = self._index_url.rpartition("/")[2]
            keys = [(index, doc_id) for doc_id in missing]
            shown |= {hit["_id"]: hit for hit in await self.hits(legs.shown(request, keys))}
        return [shown[doc_id] for doc_id in page]

    async def _of_legs(self, request: SearchRequest) -> Sequence[Sequence[dict[str, Any]]]:
        embedding = await self.embed(request.text)
        bodies = [legs.expansion(request, self._profile), legs.vector(request, self._profile, embedding)]
        answer = await send(self._session, "POST", f"{self._index_url}/_msearch", legs.msearch(bodies, {}))
        return [each["hits"]["hits"] for each in json.loads(answer)["responses"]]

    async def hits(self, body: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The hits of one search."""
        hits: list[dict[str, Any]] = json.loads(
            await send(self._session, "POST", f"{self._index_url}/_search", json_tree.write(body))
        )["hits"]["hits"]
        return hits

    async def search_by_engine(self, body: Mapping[str, Any], request: SearchRequest) -> None:
        """One search in the shape of OpenSearch's `hybrid` query: it runs both legs and shows ten hits.

        The node joins them by `bool`, which keeps one list in place of two and normalises nothing, so that the engine's
        own takes at least as long.
        """
        embedding = await self.embed(request.text)
        text, vector = (
            legs.expansion(request, self._profile)["query"],
            legs.vector(request, self._profile, embedding)["query"],
        )
        await self.hits({**body, "query": {"bool": {"should": [text, vector]}}})
