"""Shadow mode: searches are answered as the cluster does, and ranked in the background to compare both rankings."""

import asyncio
from dataclasses import replace

import msgspec
import structlog

from bridge.proxy.experiments.event_log import DEPTH, Comparison, EventLog, now, overlap, rank_biased_overlap
from bridge.proxy.server.metrics import Metrics
from bridge.proxy.upgrade.planning import Plan
from bridge.proxy.upgrade.ranking import RankingCache

log = structlog.get_logger(__name__)

MAX_AT_ONCE = 16


class Shadow:
    """Compares rankings in the background. Call `close` before the connections that it needs are closed."""

    def __init__(self, rankings: RankingCache, metrics: Metrics, events: EventLog) -> None:
        self._rankings = rankings
        self._metrics = metrics
        self._events = events
        self._running: set[asyncio.Task[None]] = set()

    def compare(self, plan: Plan) -> None:
        """Rank the search in the background, unless `MAX_AT_ONCE` are being ranked already."""
        if len(self._running) < MAX_AT_ONCE:
            task = asyncio.create_task(self._compare(plan))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    async def close(self) -> None:
        """Cancel the comparisons that still run."""
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    async def _compare(self, plan: Plan) -> None:
        # An explained ranking runs the application's own query as a leg too.
        ranked = await self._rankings.rank(replace(plan, explain=True))
        own = ranked.ranking.own[:DEPTH]
        upgraded = [hit.key for hit in ranked.ranking.hits][:DEPTH]
        for reason in ranked.notes.degraded:
            self._metrics.degraded.labels(reason).inc()
        if not own or not upgraded:
            return
        comparison = Comparison(
            time=now(),
            index=plan.expression,
            stages=ranked.stages,
            overlap=round(overlap(own, upgraded), 4),
            rank_biased_overlap=round(rank_biased_overlap(own, upgraded), 4),
            took_ms=round(sum(ranked.notes.timings_ms.values()), 1),
        )
        self._metrics.shadow_overlap.observe(comparison.overlap)
        self._events.append(comparison)
        log.info("shadow", **msgspec.structs.asdict(comparison))
