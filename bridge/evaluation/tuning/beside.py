"""What an index that is enriched beside answers, asked as the proxy asks it."""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import msgspec

from bridge.errors import AnswerNotUnderstood
from bridge.evaluation.tuning.answers import ClusterAndSidecar, EncodedQuery
from bridge.profile import IndexProfile
from bridge.proxy.transport.headers import own_identity
from bridge.proxy.transport.passthrough import AnswerMemory
from bridge.proxy.transport.upstream import Upstream
from bridge.proxy.upgrade.cluster_client import OwnSearches
from bridge.proxy.upgrade.model_client import Sidecar
from bridge.proxy.upgrade.planning import Plan
from bridge.proxy.upgrade.ranking import CallersBackend, Notes
from bridge.records import Hit, Key, Passage, Terms
from bridge.search.json_tree import Json
from bridge.search.request import SearchRequest
from bridge.settings import Settings

_T = TypeVar("_T")


class ProxySearches:
    """The proxy's searches, in the name of the settings' user, on an event loop of their own: whoever tunes waits for
    each answer."""

    def __init__(self, settings: Settings, loop: asyncio.AbstractEventLoop, upstream: Upstream) -> None:
        self._settings = settings
        self._loop = loop
        self._searches = OwnSearches(upstream, AnswerMemory(settings.proxy.upgrade_memory_bytes), settings)

    def plan(self, index: str, request: SearchRequest, profile: IndexProfile) -> Plan:
        """The plan of one search, with as much time as a request of any command has."""
        budget_s = self._settings.cluster.timeout_s
        return Plan(
            request=request,
            profile=profile,
            expression=index,
            caller=own_identity(self._settings.cluster),
            stage="hybrid",
            explain=False,
            deadline=self._loop.time() + budget_s,
            budget_s=budget_s,
        )

    def wait(self, answer: Callable[[OwnSearches], Coroutine[Any, Any, _T]]) -> _T:
        """What `answer` gives."""
        return asyncio.run_coroutine_threadsafe(answer(self._searches), self._loop).result()


@contextmanager
def proxy_searches(settings: Settings) -> Iterator[ProxySearches]:
    """Connects to the cluster of the settings for the length of the block."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    upstream = Upstream(settings.cluster)
    try:
        asyncio.run_coroutine_threadsafe(upstream.__aenter__(), loop).result()
        yield ProxySearches(settings, loop, upstream)
    finally:
        asyncio.run_coroutine_threadsafe(upstream.__aexit__(None, None, None), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@dataclass(frozen=True, slots=True)
class CompanionAndSidecar(ClusterAndSidecar):
    """Sends the requests of one search of an index that has a companion: `index` is the application's."""

    request: SearchRequest
    searches: ProxySearches

    def search(
        self, bodies: Mapping[str, Json], profile: IndexProfile, encoded: EncodedQuery
    ) -> Mapping[str, Sequence[Hit]]:
        wide = msgspec.structs.replace(profile, window=max(body["size"] for body in bodies.values()))

        async def hits(backend: CallersBackend) -> Mapping[str, Sequence[Hit]]:
            await backend.embed(self.request.text)
            await backend.weigh(self.request.text)
            await backend.embed_for_images(self.request.text)
            return await backend.search(bodies)

        return self._answer(wide, encoded, hits)

    def read(
        self, keys: Sequence[Key], embedding: Sequence[float] | None, *, passages: int
    ) -> Mapping[Key, Sequence[Passage]]:
        return self._answer(
            self.profile, EncodedQuery(embedding), lambda backend: backend.read(keys, embedding, passages=passages)
        )

    def _answer(
        self,
        profile: IndexProfile,
        encoded: EncodedQuery,
        question: Callable[[CallersBackend], Coroutine[Any, Any, _T]],
    ) -> _T:
        plan, notes = self.searches.plan(self.index, self.request, profile), Notes()

        async def answer(asked: OwnSearches) -> _T:
            return await question(CallersBackend(plan, asked, cast(Sidecar, _KnownQuery(encoded)), notes))

        found = self.searches.wait(answer)
        for failure in notes.failures:
            # Documents without text are read by nobody.
            if failure.reason != "texts_hidden":
                raise AnswerNotUnderstood(f"index {self.index}: {failure.reason}: {failure}")
        return found


@dataclass(frozen=True, slots=True)
class _KnownQuery:
    """In place of the sidecar: what encoders make of the query is known."""

    encoded: EncodedQuery

    async def embed(self, _: str, **__: object) -> Sequence[float] | None:
        return self.encoded.embedding

    async def embed_for_images(self, *_: object, **__: object) -> Sequence[float] | None:
        return self.encoded.of_images

    async def weigh(self, *_: object, **__: object) -> Terms | None:
        return self.encoded.terms
