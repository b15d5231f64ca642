"""Shadow mode: searches are answered as the cluster does, and ranked beside it only to tell the difference."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import structlog

from bridge.proxy.composing import Composer
from bridge.proxy.metrics import Metrics
from bridge.proxy.planning import Plan

log = structlog.get_logger(__name__)

DEPTH = 10
"""How much of the two rankings is compared: a first page."""
PERSISTENCE = 0.9
"""How likely a reader is to look at the next hit: the first ten ranks then weigh 65 % of an endless list."""
MAX_AT_ONCE = 16

Key = tuple[str, str]
"""Index and `_id` of a document."""


class Shadow:
    """Compares rankings in the background; use `close` before the connections that it needs go away."""

    def __init__(self, composer: Composer, metrics: Metrics) -> None:
        self._composer = composer
        self._metrics = metrics
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
        own = [hit.key for hit in ranked.found.get("lexical", ())][:DEPTH]
        upgraded = [hit.key for hit in ranked.hits][:DEPTH]
        for reason in ranked.degraded:
            self._metrics.degraded.labels(reason).inc()
        if not own or not upgraded:
            return
        shared = overlap(own, upgraded)
        self._metrics.shadow_overlap.observe(shared)
        log.info(
            "shadow",
            index=plan.expression,
            stages=ranked.stages,
            overlap=round(shared, 3),
            rank_biased_overlap=round(rank_biased_overlap(own, upgraded), 3),
            took_ms=round(sum(ranked.timings_ms.values()), 1),
        )


def overlap(one: Sequence[Key], other: Sequence[Key]) -> float:
    """The share of the longer list's documents that both have; 0…1."""
    return len(set(one) & set(other)) / max(len(one), len(other))


def rank_biased_overlap(one: Sequence[Key], other: Sequence[Key], *, persistence: float = PERSISTENCE) -> float:
    """How alike two rankings are, the first ranks counting most; 0…1, 1 for equal ones.

    Webber, Moffat, Zobel (TOIS 2010), cut off at the longer list and scaled so that equal lists give 1.
    """
    depth = max(len(one), len(other))
    agreement = sum(
        persistence ** (d - 1) * len(set(one[:d]) & set(other[:d])) / max(len(one[:d]), len(other[:d]))
        for d in range(1, depth + 1)
    )
    return agreement * (1 - persistence) / (1 - persistence**depth)
