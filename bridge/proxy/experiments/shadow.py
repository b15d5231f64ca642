"""Shadow mode: searches are answered as the cluster does, and ranked beside it only to tell the difference."""

import asyncio
from dataclasses import replace

import msgspec
import structlog

from bridge.proxy.experiments.event_log import Comparison, EventLog, now
from bridge.proxy.experiments.rank_comparison import DEPTH, overlap, rank_biased_overlap
from bridge.proxy.server.metrics import Metrics
from bridge.proxy.upgrade.composing import Composer
from bridge.proxy.upgrade.planning import Plan

log = structlog.get_logger(__name__)

MAX_AT_ONCE = 16


class Shadow:
    """Compares rankings in the background; use `close` before the connections that it needs go away."""

    def __init__(self, composer: Composer, metrics: Metrics, events: EventLog) -> None:
        self._composer = composer
        self._metrics = metrics
        self._events = events
        self._running: set[asyncio.Task[None]] = set()

    def compare(self, plan: Plan) -> None:
        """Ranks the search in the background; left out where many are being ranked already."""
        if len(self._running) < MAX_AT_ONCE:
            task = asyncio.create_task(self._compare(plan))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    async def close(self) -> None:
        """Gives up what is still running."""
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    async def _compare(self, plan: Plan) -> None:
        # An explained ranking runs the application's own query as a leg too.
        ranked = await self._composer.rank(replace(plan, explain=True))
        own = [hit.key for hit in ranked.ranking.legs.get("lexical", ())][:DEPTH]
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
