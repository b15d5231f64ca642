"""Rankings that serve once more: the same caller asks the same, and the cluster still answers the same.

What is kept are ids and scores, never a document: every page shows hits that the cluster gives this caller now. A
ranking serves again only where the application's own query, which each search asks anew, still has the same total and
the same best score. Documents written or deleted since move one of the two: Lucene's scores depend on how many
documents there are. So do other permissions, and whoever may not search any longer gets the cluster's refusal.
Searches for the same ranking at the same time wait for the first of them.
"""

import asyncio
import contextlib
import hashlib
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import msgspec
import structlog
from cachetools import TTLCache

from bridge.profile import IndexProfile
from bridge.proxy.server.metrics import Metrics
from bridge.proxy.transport.headers import identity
from bridge.proxy.upgrade.planning import Plan
from bridge.proxy.upgrade.ranking import Notes, Ranked, Ranker, internal_error
from bridge.records import RankedHit
from bridge.search.flow import Ranking, reranked_documents
from bridge.settings import ProxySettings

log = structlog.get_logger(__name__)

_WAITING_SHARE = 0.5
"""Of the budget: what a search may spend on waiting for another's ranking; the rest is for a ranking of its own."""


class _Answer(msgspec.Struct):
    """The cluster's answer to the application's own query, as far as it tells whether anything has changed."""

    class Hits(msgspec.Struct):
        """The envelope of its hits."""

        total: msgspec.Raw = msgspec.Raw(b"")
        max_score: float | None = None

    class Shards(msgspec.Struct):
        """How many shards failed."""

        failed: int = 0

    hits: Hits
    shards: Shards = msgspec.field(name="_shards", default_factory=Shards)
    timed_out: bool = False


@dataclass(frozen=True, slots=True)
class _Kept:
    """A ranking; `state` is what the application's own query answered when it was made."""

    state: bytes
    profile: IndexProfile
    ranking: Ranking

    @property
    def size(self) -> int:
        """Bytes in memory, the profile aside, which all rankings of an index share."""
        return sum(map(sys.getsizeof, (self, self.state, self.ranking, self.ranking.hits))) + sum(
            sum(map(sys.getsizeof, (hit, hit.index, hit.doc_id, hit.score))) for hit in self.ranking.hits
        )


class RankingCache:
    """Keeps rankings for `ranking_ttl_s`, in no more than `ranking_cache_bytes`; with a time of 0 it keeps none."""

    def __init__(
        self, ranker: Ranker, settings: ProxySettings, metrics: Metrics, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._ranker = ranker
        self._kept: TTLCache[bytes, _Kept] = TTLCache(
            settings.ranking_cache_bytes, settings.ranking_ttl_s, timer=clock, getsizeof=lambda kept: kept.size
        )
        self._under_way: dict[bytes, asyncio.Event] = {}
        self._searches = metrics.ranking_cache

    async def rank(self, plan: Plan, own_body: Awaitable[bytes] | None = None) -> Ranked:
        """The ranking for a plan; never fails. With `own_body`, the cluster's answer to the application's own query,
        it may be a cached one."""
        try:
            return await self._rank(plan, own_body)
        except Exception:
            # Whatever it is, a fault of ours must not fail a search that the cluster can answer.
            log.exception("ranking failed")
            return Ranked(notes=Notes([internal_error()]))

    async def _rank(self, plan: Plan, own_body: Awaitable[bytes] | None) -> Ranked:
        # What a kept ranking does not hold: ranks by leg, and texts of documents, which the caller may not see later.
        if own_body is None or self._kept.ttl == 0 or plan.explain or plan.passage:
            return await self._ranker.rank(plan)
        key = _key(plan, reranks=plan.request.start < reranked_documents(plan.profile, plan.stage))
        if (under_way := self._under_way.get(key)) is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(plan.deadline - plan.budget_s * _WAITING_SHARE):
                    await under_way.wait()
        kept = self._kept.get(_key(plan, reranks=True)) or self._kept.get(key)
        if kept is not None and kept.profile == plan.profile:
            if kept.state == _state(await own_body):
                self._searches.labels("hit").inc()
                return Ranked(kept.ranking, kept=True)
            self._searches.labels("changed").inc()
        else:
            self._searches.labels("miss").inc()
        return await self._ranked_anew(key, plan, own_body)

    async def _ranked_anew(self, key: bytes, plan: Plan, own_body: Awaitable[bytes]) -> Ranked:
        self._under_way[key] = ended = asyncio.Event()
        try:
            ranked = await self._ranker.rank(plan)
            ranking = ranked.ranking
            if ranking.hits and not ranked.notes.failures and (state := _state(await own_body)) is not None:
                hits = tuple(RankedHit(hit.index, hit.doc_id, hit.score) for hit in ranking.hits)
                with contextlib.suppress(ValueError):  # larger than all that may be kept
                    self._kept[key] = _Kept(state, plan.profile, Ranking(hits, ranking.complete, ranking.stages))
            return ranked
        finally:
            ended.set()
            if self._under_way.get(key) is ended:
                del self._under_way[key]


def _key(plan: Plan, *, reranks: bool) -> bytes:
    """Who asks, and all that the ranking depends on but for the index's profile. A page beyond the documents that are
    reranked needs none of it, and may use a ranking that has it."""
    request = plan.request
    asked = (plan.expression, plan.stage, reranks, request.query, request.post_filter, request.min_score)
    more = (request.timeout, dict(request.scope))
    return identity(plan.caller) + hashlib.sha256(msgspec.json.encode((asked, more))).digest()


def _state(own_body: bytes) -> bytes | None:
    """Total and best score; None where the answer tells too little to notice a change."""
    try:
        answer = msgspec.json.decode(own_body, type=_Answer)
    except msgspec.DecodeError:
        return None
    if answer.hits.max_score is None or answer.timed_out or answer.shards.failed:
        return None
    return b"%b %r" % (bytes(answer.hits.total), answer.hits.max_score)
