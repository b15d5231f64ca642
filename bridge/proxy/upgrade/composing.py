"""A ranking and the application's own answer → the answer's body; hits that are missing are fetched."""

from collections.abc import Awaitable, Sequence

import msgspec
import structlog

from bridge.errors import AnswerNotUnderstood, StageFailed
from bridge.proxy.upgrade import explain
from bridge.proxy.upgrade.cluster_client import OwnSearches
from bridge.proxy.upgrade.details import Details
from bridge.proxy.upgrade.planning import Plan
from bridge.proxy.upgrade.ranking import Notes, Ranked, Ranker
from bridge.proxy.upgrade.ranking_cache import RankingCache
from bridge.records import Key, Passage, RankedHit
from bridge.search import legs
from bridge.search.filter_path import filtered
from bridge.search.hiding import RawObject, hidden, hit_without
from bridge.search.reranking import tail_score
from bridge.search.response import OwnAnswer, ShownHit, shown_hit

log = structlog.get_logger(__name__)


class Composer:
    """Composes answers."""

    def __init__(self, ranker: Ranker, rankings: RankingCache, searches: OwnSearches) -> None:
        self._ranker = ranker
        self._rankings = rankings
        self._searches = searches
        self._details = Details(searches)

    async def rank(self, plan: Plan, own_body: Awaitable[bytes] | None = None) -> Ranked:
        """The ranking; never fails. With the cluster's answer to the application's own query it may be a kept one."""
        try:
            if own_body is not None:
                return await self._rankings.rank(plan, own_body, self._ranker.rank)
            return await self._ranker.rank(plan)
        except Exception:
            # Whatever it is, a fault of ours must not fail a search that the cluster can answer.
            log.exception("ranking failed")
            return Ranked(notes=Notes([_internal_error()]))

    async def compose(self, plan: Plan, ranked: Ranked, own_body: bytes) -> bytes:
        """The body of the answer; never fails. What could not be done is noted in `ranked`."""
        try:
            return self._finished(plan, await self._composed(plan, ranked, OwnAnswer(own_body)))
        except AnswerNotUnderstood as error:
            log.warning("own answer left as it is", detail=str(error))
            ranked.notes.fall_back(StageFailed("answer_not_understood", str(error)))
        except Exception:
            # Whatever it is, a fault of ours must not fail a search that the cluster has answered.
            log.exception("composing failed")
            ranked.notes.fall_back(_internal_error())
        return own_body

    async def _composed(self, plan: Plan, ranked: Ranked, own: OwnAnswer) -> bytes:
        own_best = max((hit.score for hit in own.hits), default=None)
        try:
            with ranked.notes.timed("show"):
                hits = await self._page(plan, ranked, own)
            max_score = ranked.ranking.hits[0].score if ranked.ranking.hits else own_best
        except StageFailed as failed:
            ranked.notes.fall_back(failed)
            hits = [shown_hit(hit, score=hit.score) for hit in own.hits]
            max_score = own_best
        beyond = await self._details.found_beyond(plan, ranked) if plan.union and ranked.stages != "lexical" else 0
        more: dict[str, object] = {}
        if plan.explain:
            more["_bridge"] = explain.of_answer(ranked.stages, ranked.notes.degraded, ranked.notes.timings_ms)
        if not plan.request.asks_for_ours:
            # Here the hits are taken apart already; in the whole answer they would have to be found again.
            hits = [hit_without(hit, plan.profile.object_field) for hit in hits]
        return own.with_hits(hits, max_score=max_score, beyond=beyond, more=more)

    @staticmethod
    def _finished(plan: Plan, body: bytes) -> bytes:
        """The answer as it is sent: without the bridge's object, and only what is wanted of it."""
        if not plan.request.asks_for_ours:
            body = hidden(body, plan.profile.object_field)
        if plan.request.filter_path is not None:
            body = filtered(body, plan.request.filter_path)
        return msgspec.json.format(body, indent=2) + b"\n" if plan.request.pretty else body

    async def _page(self, plan: Plan, ranked: Ranked, own: OwnAnswer) -> list[RawObject]:
        """The hits from `start` on: first of the ranking, then of the application's own results beyond it.

        Raises:
            StageFailed: hits that the own answer lacks could not be had.
        """
        request = plan.request
        if not ranked.ranking.hits:
            return [shown_hit(hit, score=hit.score) for hit in own.hits]
        end = request.start + request.size
        page = ranked.ranking.hits[request.start : end]
        available = {hit.key: hit for hit in own.hits}
        if missing := [hit.key for hit in page if hit.key not in available]:
            available |= {hit.key: hit for hit in await self._searches.show(plan, legs.shown(request, missing))}
        matching: dict[Key, list[str]] = {}
        if plan.explain:
            matching = await self._details.predicted_queries(plan, [hit.key for hit in page], ranked)
        shown = [
            _shown(plan, available[hit.key], hit, rank, ranked.ranking.passages.get(hit.key), matching.get(hit.key, ()))
            for rank, hit in enumerate(page, start=request.start + 1)
            if hit.key in available
        ]
        if end > len(ranked.ranking.hits) and not ranked.ranking.complete:
            shown += await self._tail(plan, ranked.ranking.hits)
        return shown

    async def _tail(self, plan: Plan, ranking: Sequence[RankedHit]) -> list[RawObject]:
        request = plan.request
        start = max(request.start - len(ranking), 0)
        size = request.start + request.size - max(request.start, len(ranking))
        body = legs.tail(request, without=[hit.key for hit in ranking], start=start, size=size)
        first = len(ranking) + start + 1
        return [
            shown_hit(
                hit,
                score=tail_score(hit.score),
                explanation=explain.of_tail(rank=rank, own_score=hit.score) if plan.explain else None,
            )
            for rank, hit in enumerate(await self._searches.show(plan, body), start=first)
        ]


def _internal_error() -> StageFailed:
    return StageFailed("internal_error", "a fault of the proxy's own: its log has the traceback")


def _shown(
    plan: Plan, hit: ShownHit, ranked: RankedHit, rank: int, passage: Passage | None, matching: Sequence[str]
) -> RawObject:
    """A hit of the ranking, with what the request wants to know of it."""
    explanation = (
        explain.of_hit(ranked, rank=rank, passage=passage, predicted_queries=matching) if plan.explain else None
    )
    return shown_hit(
        hit,
        score=ranked.score,
        passage=passage.text if plan.passage and passage is not None else None,
        explanation=explanation,
    )
