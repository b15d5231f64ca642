"""Ranks a search by the caller's cluster and the model servers, within its budget; a search never fails here.

Whatever fails only takes its stage out of the ranking. Every request to the cluster carries the caller's identity.
"""

import asyncio
from collections.abc import Awaitable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

import structlog
from cachetools import TTLCache

from bridge.errors import AnswerNotUnderstood, CascadeMissing, StageFailed
from bridge.proxy.upgrade.cluster_client import OwnSearches, deadline_of_ranking, deadline_of_showing, scope
from bridge.proxy.upgrade.model_client import Sidecar
from bridge.proxy.upgrade.planning import Plan
from bridge.records import Hit, Key, Passage
from bridge.search import flow, legs
from bridge.search.cascade import CascadeRequest
from bridge.search.flow import Ranking
from bridge.search.json_tree import Json
from bridge.search.response import leg_rankings, passages_to_read

log = structlog.get_logger(__name__)

_EMBEDDING_SHARE = 0.4
"""Of the budget: what embedding may take, so that text legs can still run if it fails late."""

_SAME_REASON_S = 10.0

_T = TypeVar("_T")


@dataclass(slots=True)
class Notes:
    """What happened on the way to one answer.

    `failures`: why parts of it were left out; `timings_ms` by stage; `fell_back`: the application's own answer is
    given, and not the ranking.
    """

    failures: list[StageFailed] = field(default_factory=list)
    timings_ms: dict[str, float] = field(default_factory=dict)
    fell_back: bool = False

    @property
    def degraded(self) -> list[str]:
        """The reasons of the failures, in the order in which they came."""
        return [failure.reason for failure in self.failures]

    def fall_back(self, failure: StageFailed) -> None:
        """Notes that the application's own answer is given after all."""
        self.fell_back = True
        self.failures.append(failure)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Adds the block's time to `timings_ms`."""
        started = _now()
        try:
            yield
        finally:
            self.add_time(stage, _now() - started)

    def add_time(self, stage: str, seconds: float) -> None:
        """Adds to `timings_ms`."""
        self.timings_ms[stage] = self.timings_ms.get(stage, 0.0) + seconds * 1000


@dataclass(frozen=True, slots=True)
class Ranked:
    """A ranking for one answer, and the notes on both.

    `impression`: what a click names if the ranking is interleaved. `kept`: the ranking was made for an earlier search.
    """

    ranking: Ranking = field(default_factory=Ranking)
    notes: Notes = field(default_factory=Notes)
    impression: str | None = None
    kept: bool = False

    @property
    def stages(self) -> str:
        """What took part in the answer, for example `hybrid+rerank`."""
        return "lexical" if self.notes.fell_back else self.ranking.stages


class Ranker:
    """Ranks by the cluster and the model servers."""

    def __init__(self, searches: OwnSearches, sidecar: Sidecar) -> None:
        self._searches = searches
        self._sidecar = sidecar
        self._logged: TTLCache[str, None] = TTLCache(1000, _SAME_REASON_S)

    async def rank(self, plan: Plan) -> Ranked:
        """The ranking by all stages that worked; without hits if no leg answered."""
        notes = Notes()
        backend = CallersBackend(plan, self._searches, self._sidecar, notes)
        ranking = await flow.rank(plan.request, plan.profile, plan.stage, backend, explain=plan.explain)
        backend.end_fusion()
        for failure in notes.failures:
            self._log(failure)
        return Ranked(ranking, notes)

    async def passages(self, plan: Plan, ranked: Ranked, keys: Sequence[Key]) -> Mapping[Key, Sequence[Passage]]:
        """The passage of each document that is nearest to the query, to be shown; empty if they cannot be had."""
        backend = CallersBackend(plan, self._searches, self._sidecar, ranked.notes)
        return await backend.read(keys, ranked.ranking.embedding, passages=1, deadline=deadline_of_showing(plan))

    def _log(self, failure: StageFailed) -> None:
        # An outage under load would write a line for every search; the metric counts them all.
        if failure.reason not in self._logged:
            self._logged[failure.reason] = None
            log.warning("stage left out", reason=failure.reason, detail=str(failure)[:500])


class CallersBackend(flow.Backend):
    """Answers one search in its caller's name, within its budget. Notes failures and timings."""

    def __init__(self, plan: Plan, searches: OwnSearches, sidecar: Sidecar, notes: Notes) -> None:
        self._plan = plan
        self._searches = searches
        self._sidecar = sidecar
        self._notes = notes
        self._fusion_began: float | None = None

    async def embed(self, text: str) -> Sequence[float] | None:
        plan = self._plan
        return await self._noted(
            "embed",
            self._sidecar.embed(
                text,
                dimension=plan.profile.dimension,
                identity=plan.profile.encoder.identity,
                deadline=plan.deadline - plan.budget_s * (1 - _EMBEDDING_SHARE),
            ),
        )

    async def search(self, bodies: Mapping[str, Json]) -> Mapping[str, Sequence[Hit]]:
        hits_of = await self._noted("legs", self._msearch(bodies)) or {}
        self._fusion_began = _now()
        for leg, hits in hits_of.items():
            if isinstance(hits, str):
                self._notes.failures.append(StageFailed(f"{leg}_leg_failed", hits))
        return {leg: hits for leg, hits in hits_of.items() if not isinstance(hits, str)}

    async def _msearch(self, bodies: Mapping[str, Json]) -> dict[str, list[Hit] | str]:
        plan = self._plan
        answer = await self._searches.msearch(plan, legs.msearch(bodies.values(), scope(plan)), stage="legs")
        try:
            return leg_rankings(answer, list(bodies))
        except AnswerNotUnderstood as error:
            raise StageFailed("legs_unavailable", str(error)) from error

    async def read(
        self, keys: Sequence[Key], embedding: Sequence[float] | None, *, passages: int, deadline: float | None = None
    ) -> Mapping[Key, Sequence[Passage]]:
        """As `Backend.read`; `deadline`, on the event loop's clock, is that of ranking by default."""
        self.end_fusion()
        until = deadline if deadline is not None else deadline_of_ranking(self._plan)
        return await self._noted("texts", self._passages(keys, embedding, passages, until)) or {}

    async def _passages(
        self, keys: Sequence[Key], embedding: Sequence[float] | None, passages: int, deadline: float
    ) -> dict[Key, list[Passage]]:
        profile = self._plan.profile
        body = legs.texts(profile, keys, embedding, passages=passages)
        hits = await self._searches.hits(self._plan, body, stage="texts", deadline=deadline)
        try:
            visible = passages_to_read(hits, keys, profile)
        except ValueError as error:
            raise StageFailed("texts_unavailable", f"a document's source cannot be read: {error}") from error
        if not visible:
            raise StageFailed("texts_hidden", "the caller may see no text of the documents found")
        return visible

    def check_cascade(self) -> None:
        try:
            self._sidecar.check_cascade()
        except CascadeMissing as missing:
            self._notes.failures.append(missing)
            raise

    async def score(
        self, text: str, passages: Sequence[str], *, cascade: CascadeRequest | None = None
    ) -> Sequence[float] | None:
        deadline = deadline_of_ranking(self._plan)
        scores = await self._noted("rerank", self._sidecar.rerank(text, passages, cascade=cascade, deadline=deadline))
        if scores is None and isinstance(missing := self._notes.failures[-1], CascadeMissing):
            raise missing
        return scores

    async def _noted(self, stage: str, answer: Awaitable[_T]) -> _T | None:
        """The answer, with its time noted; None if the stage failed, with the failure noted."""
        try:
            with self._notes.timed(stage):
                return await answer
        except StageFailed as failed:
            self._notes.failures.append(failed)
            return None

    def end_fusion(self) -> None:
        """Notes how long the ranking took since the legs answered; called when the next part begins."""
        if self._fusion_began is not None:
            self._notes.add_time("fuse", _now() - self._fusion_began)
            self._fusion_began = None


def internal_error() -> StageFailed:
    """The reason that is shown for a fault of the proxy itself."""
    return StageFailed("internal_error", "a fault of the proxy itself: its log has the traceback")


def _now() -> float:
    return asyncio.get_running_loop().time()
