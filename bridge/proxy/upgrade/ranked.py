"""A ranking in the making, with what went wrong on the way."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from bridge.errors import StageFailed
from bridge.records import Passage, RankedHit
from bridge.search.fusion import LegRankings
from bridge.search.legs import Key


@dataclass(slots=True)
class Ranked:
    """A ranking and how it came about.

    `complete`: every document that the application's own query matches is in it. `stages`: what took
    part, for example `hybrid+rerank`; `failures`: why something did not; `timings_ms` by stage.
    `found`: what each leg found; `passages`: of documents with several, the one that the cross-encoder read.
    `embedding`: the query's, None where it could not be had or must not be compared with. `impression`:
    what a click names, where the ranking is an interleaved one. `kept`: it was made for an earlier search.
    """

    hits: Sequence[RankedHit] = ()
    complete: bool = False
    stages: str = "lexical"
    failures: list[StageFailed] = field(default_factory=list)
    timings_ms: dict[str, float] = field(default_factory=dict)
    found: LegRankings = field(default_factory=dict)
    passages: dict[Key, Passage] = field(default_factory=dict)
    embedding: Sequence[float] | None = None
    impression: str | None = None
    kept: bool = False

    @property
    def degraded(self) -> list[str]:
        """The reasons of the failures, in the order in which they came."""
        return [failure.reason for failure in self.failures]

    def fall_back(self, failure: StageFailed) -> None:
        """Notes that the application's own answer is given after all."""
        self.stages = "lexical"
        self.failures.append(failure)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Adds the block's time to `timings_ms`."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        try:
            yield
        finally:
            self.timings_ms[stage] = self.timings_ms.get(stage, 0.0) + (loop.time() - started) * 1000
