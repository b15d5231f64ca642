"""Embeddings of queries: each is made once, also where several searches ask for it at the same time."""

import asyncio
from array import array
from collections.abc import Awaitable, Callable

from cachetools import LRUCache

Key = tuple[str, str]
"""The encoder's identity and the text."""


class EmbeddingCache:
    """Remembers `size` embeddings, those used last; whom they were made for makes no difference to them."""

    def __init__(self, size: int) -> None:
        # A list of 384 numbers takes 12 KB, an array 3.
        self._known: LRUCache[Key, array[float]] = LRUCache(size)
        self._under_way: dict[Key, asyncio.Future[list[float]]] = {}

    async def get(self, key: Key, make: Callable[[], Awaitable[list[float]]]) -> list[float]:
        """The embedding, by `make` where it is not known yet; what that raises, all raise that wait for it.

        A search that is given up leaves the making to those that wait, and to the next.
        """
        if (known := self._known.get(key)) is not None:
            return known.tolist()
        if (under_way := self._under_way.get(key)) is None:
            self._under_way[key] = under_way = asyncio.ensure_future(make())
            under_way.add_done_callback(lambda made: self._made(key, made))
        return await asyncio.shield(under_way)

    def _made(self, key: Key, made: asyncio.Future[list[float]]) -> None:
        del self._under_way[key]
        if not made.cancelled() and made.exception() is None:
            self._known[key] = array("d", made.result())
