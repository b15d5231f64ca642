"""Ranks a search by the caller's cluster and the model servers, within its budget; a search never fails here.

Whatever fails only takes its stage out of the ranking. Every request to the cluster carries the caller's identity.
"""

import asyncio
import contextlib
import hashlib
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TypeVar
from urllib.parse import quote

import msgspec
import structlog
from cachetools import TTLCache

from bridge.errors import AnswerNotUnderstood, CascadeMissing, StageFailed
from bridge.profile import IndexProfile
from bridge.proxy.server.metrics import Metrics
from bridge.proxy.transport.headers import MARK, identity
from bridge.proxy.transport.passthrough import aside
from bridge.proxy.upgrade.cluster_client import OwnSearches, deadline_of_ranking, deadline_of_showing, scope
from bridge.proxy.upgrade.companion import CompanionLegs, Entries, companion_texts
from bridge.proxy.upgrade.model_client import Sidecar
from bridge.proxy.upgrade.planning import Plan
from bridge.records import Hit, Key, Passage, RankedHit, Terms
from bridge.search import flow, legs
from bridge.search.cascade import CascadeRequest
from bridge.search.flow import Ranking, reranked_documents
from bridge.search.json_tree import Json
from bridge.search.repair import Doubts
from bridge.search.request import Repair, SearchRequest
from bridge.search.response import leg_rankings, passages_to_read
from bridge.settings import ProxySettings
from bridge.text import decode_answer

log = structlog.get_logger(__name__)

_ENCODING_SHARE = 0.4
"""Of the budget: what encoding the query may take, so that text legs can still run if it fails late."""

_PROMPT_SHARE = 0.01
"""Of the budget: an embedding that takes longer is not waited for by text legs. Until then one request for all legs
costs less than two."""

_WAITING_SHARE = 0.5
"""Of the budget: what a search may spend on waiting for another's ranking; the rest is for a ranking of its own."""

FALLBACK = "closest"
"""What answers and hits are marked with if the application's own query matches nothing."""

_SAME_REASON_S = 10.0

_T = TypeVar("_T")


@dataclass(slots=True)
class Notes:
    """What happened on the way to one answer.

    `failures`: why parts of it were left out; `timings_ms` by stage; `fell_back`: the application's own answer is
    given, and not the ranking; `n_sentences`: how many hits got the sentence that answers; `n_reranked`: how many
    documents were reranked if there was no time for all.
    """

    failures: list[StageFailed] = field(default_factory=list)
    timings_ms: dict[str, float] = field(default_factory=dict)
    fell_back: bool = False
    n_sentences: int = 0
    n_reranked: int | None = None

    @property
    def degraded(self) -> list[str]:
        """The reasons of the failures, in the order in which they came."""
        return [failure.reason for failure in self.failures]

    def fall_back(self, failure: StageFailed) -> None:
        """Notes that the application gets its own answer after all."""
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
    `entries`: which entries of companions count.
    """

    ranking: Ranking = field(default_factory=Ranking)
    notes: Notes = field(default_factory=Notes)
    impression: str | None = None
    kept: bool = False
    entries: Entries | None = None

    @property
    def stages(self) -> str:
        """What took part in the answer, for example `hybrid+rerank`."""
        return "lexical" if self.notes.fell_back else self.ranking.stages

    @property
    def closest(self) -> bool:
        """Whether the answer has the closest documents because the application's own query matches none."""
        return self.ranking.closest and not self.notes.fell_back

    @property
    def repair(self) -> Repair | None:
        """What misspelt words were taken for in the answer."""
        return None if self.notes.fell_back else self.ranking.repair


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
        try:
            ranking = await flow.rank(
                plan.request, plan.profile, plan.stage, backend, explain=plan.explain, distance=plan.distance
            )
        finally:
            backend.close()
        backend.end_fusion()
        for failure in notes.failures:
            self._log(failure)
        return Ranked(ranking, notes, entries=backend.entries)

    async def passages(self, plan: Plan, ranked: Ranked, keys: Sequence[Key]) -> Mapping[Key, Sequence[Passage]]:
        """The passage of each document that is nearest to the query, to be shown; empty if they cannot be had."""
        backend = CallersBackend(plan, self._searches, self._sidecar, ranked.notes)
        backend.entries = ranked.entries or backend.entries
        return await backend.read(keys, ranked.ranking.embedding, passages=1, deadline=deadline_of_showing(plan))

    def _log(self, failure: StageFailed) -> None:
        # An outage under load would write a line for every search; the metric counts them all.
        if failure.reason not in self._logged:
            self._logged[failure.reason] = None
            log.warning("stage left out", reason=failure.reason, detail=str(failure)[:500])


class CallersBackend(flow.Backend):
    """Answers one search in its caller's name, within its budget; a companion is asked in the bridge's. Notes failures
    and timings, and in `entries` what companions hold."""

    def __init__(self, plan: Plan, searches: OwnSearches, sidecar: Sidecar, notes: Notes) -> None:
        self._plan = plan
        self._searches = searches
        self._sidecar = sidecar
        self._notes = notes
        self._fusion_began: float | None = None
        self._embedding: Sequence[float] | None = None
        self._terms: Terms | None = None
        self._of_images: Sequence[float] | None = None
        self._waiting: asyncio.TimerHandle | None = None
        self._begun: dict[str, Json] = {}
        self._beginning: asyncio.Task[dict[str, list[Hit] | str]] | None = None
        self.entries = Entries(plan.profile) if plan.profile.beside is not None else None

    async def repair(self, request: SearchRequest) -> Repair | None:
        repair = await self._noted("repair", self._repair(request))
        # Companions are asked by the plan.
        self._plan = replace(self._plan, request=replace(request, repair=repair))
        return repair

    async def _repair(self, request: SearchRequest) -> Repair | None:
        if (doubts := Doubts.of(request, self._plan.profile)) is None:
            return None
        try:
            if (missing := doubts.missing(await self._looked_up(doubts.bodies))) is None:
                return None
            if (guesses := missing.guesses(await self._looked_up(missing.bodies))) is None:
                return None
            return guesses.repair(await self._looked_up(guesses.bodies))
        except AnswerNotUnderstood as error:
            raise StageFailed("repair_unavailable", str(error)) from error

    async def _looked_up(self, bodies: Sequence[Json]) -> bytes:
        body = legs.msearch(bodies, scope(self._plan))
        return await self._searches.msearch(self._plan, body, stage="repair", deadline=self._deadline_of_encoding())

    async def embed(self, text: str) -> Sequence[float] | None:
        plan = self._plan
        self._embedding = await self._noted(
            "embed",
            self._sidecar.embed(
                text,
                dimension=plan.profile.dimension,
                identity=plan.profile.encoder.identity,
                deadline=self._deadline_of_encoding(),
            ),
        )
        return self._embedding

    async def embed_for_images(self, text: str) -> Sequence[float] | None:
        if (image := self._plan.profile.image) is not None:
            deadline = self._deadline_of_encoding()
            asked = self._sidecar.embed_for_images(text, image, deadline=deadline)
            self._of_images = await self._noted("embed_image", asked)
        return self._of_images

    async def weigh(self, text: str) -> Terms | None:
        if (sparse := self._plan.profile.sparse) is not None:
            deadline = self._deadline_of_encoding()
            self._terms = await self._noted("weigh", self._sidecar.weigh(text, sparse, deadline=deadline))
        return self._terms

    def _deadline_of_encoding(self) -> float:
        return self._plan.deadline - self._plan.budget_s * (1 - _ENCODING_SHARE)

    def begin(self, bodies: Mapping[str, Json]) -> None:
        # What a companion finds is admitted together.
        if self.entries is None:
            late_s = self._plan.budget_s * _PROMPT_SHARE
            self._waiting = asyncio.get_running_loop().call_later(late_s, self._begin, dict(bodies))

    def _begin(self, bodies: dict[str, Json]) -> None:
        self._begun = bodies
        self._beginning = asyncio.create_task(self._msearch(bodies))

    def close(self) -> None:
        """Drops legs that were begun and that nobody waits for any more."""
        if self._waiting is not None:
            self._waiting.cancel()
        if self._beginning is not None:
            self._beginning.cancel()
            self._beginning.add_done_callback(lambda ended: ended.cancelled() or ended.exception())

    async def search(self, bodies: Mapping[str, Json]) -> Mapping[str, Sequence[Hit]]:
        hits_of = await self._noted("legs", self._answered(bodies)) or {}
        self._fusion_began = _now()
        for leg, hits in hits_of.items():
            if isinstance(hits, str):
                self._notes.failures.append(StageFailed(f"{leg}_leg_failed", hits))
        return {leg: hits for leg, hits in hits_of.items() if not isinstance(hits, str)}

    async def _answered(self, bodies: Mapping[str, Json]) -> dict[str, list[Hit] | str]:
        """The answers to the legs, of which some may be under way; a failure only if there is none."""
        if self._waiting is not None:
            self._waiting.cancel()
        if (beginning := self._beginning) is None:
            return await self._msearch(bodies)
        rest = {leg: body for leg, body in bodies.items() if leg not in self._begun}
        both = [beginning, self._msearch(rest)] if rest else [beginning]
        answers = await asyncio.gather(*both, return_exceptions=True)
        self._beginning = None
        failures = [answer for answer in answers if isinstance(answer, BaseException)]
        hits_of = {leg: hits for answer in answers if isinstance(answer, dict) for leg, hits in answer.items()}
        for failure in failures:
            if not hits_of or not isinstance(failure, StageFailed):
                raise failure
            self._notes.failures.append(failure)
        return hits_of

    async def _msearch(self, bodies: Mapping[str, Json]) -> dict[str, list[Hit] | str]:
        plan = self._plan
        if self.entries is not None:
            ours = CompanionLegs(
                plan,
                self._searches,
                self.entries,
                embedding=self._embedding,
                terms=self._terms,
                of_images=self._of_images,
            )
            return await ours.answer(bodies)
        answer = await self._searches.msearch(plan, legs.msearch(bodies.values(), scope(plan)), stage="legs")
        try:
            return await aside(len(answer), lambda: leg_rankings(answer, list(bodies)))
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
        if self.entries is None:
            body = legs.texts(profile, keys, embedding, passages=passages)
            hits = await self._searches.hits(self._plan, body, stage="texts", deadline=deadline)
        else:
            hits = await companion_texts(self._plan, self._searches, self.entries, keys, embedding, passages, deadline)
        visible = passages_to_read(hits, keys, profile)
        if not visible:
            raise StageFailed("texts_hidden", "the caller may see no text of the documents found")
        return visible

    def affordable(self, sizes: Sequence[int]) -> int:
        n_affordable = self._sidecar.pace.affordable(sizes, deadline_of_ranking(self._plan) - _now())
        if n_affordable < len(sizes):
            self._notes.n_reranked = n_affordable
        return n_affordable

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


def marks(ranked: Sequence[Ranked], metrics: Metrics, *, n_searches: int, took_s: float) -> dict[str, str]:
    """The headers that say what was done for a request of `n_searches`, of which these were ranked. Counts it too."""
    degraded = [reason for each in ranked for reason in each.notes.degraded]
    timings = [(stage, ms) for each in ranked for stage, ms in each.notes.timings_ms.items()]
    for each in ranked:
        metrics.fallbacks.inc(each.closest)
        metrics.sentences.inc(each.notes.n_sentences)
        metrics.repairs.inc(each.repair is not None)
        if each.ranking.confidence is not None:
            metrics.confidence.observe(each.ranking.confidence)
    for reason in degraded:
        metrics.degraded.labels(reason).inc()
    for stage, ms in timings:
        metrics.stage_duration.labels(stage).observe(ms / 1000)
    parts = [ranked[0].stages if n_searches == 1 else f"upgraded={len(ranked)}/{n_searches}"]
    if degraded:
        parts.append(f"degraded={','.join(dict.fromkeys(degraded))}")
    if n_searches == 1 and ranked[0].closest:
        parts.append(f"fallback={FALLBACK}")
    if n_searches == 1 and (confidence := ranked[0].ranking.confidence) is not None:
        parts.append(f"confidence={confidence:.2f}")
    if n_searches == 1 and (repair := ranked[0].repair) is not None:
        words = (f"{quote(typed, safe='')}>{quote(meant, safe='')}" for typed, meant in repair.words.items())
        parts.append(f"repaired={','.join(words)}")
    if n_searches == 1 and (n_reranked := ranked[0].notes.n_reranked) is not None:
        parts.append(f"reranked={n_reranked}")
    if any(each.kept for each in ranked):
        parts.append("kept")
    parts.append(f"took_ms={took_s * 1000:.0f}")
    added = {MARK: "; ".join(parts)}
    if n_searches == 1:
        added["Server-Timing"] = ", ".join(f"{stage};dur={ms:.1f}" for stage, ms in timings)
    return added


def internal_error() -> StageFailed:
    """The reason that is shown for a fault of the proxy itself."""
    return StageFailed("internal_error", "a fault of the proxy itself: its log has the traceback")


def _now() -> float:
    return asyncio.get_running_loop().time()


class _Answer(msgspec.Struct):
    """The cluster's answer to the application's own query, or what of it says whether anything has changed."""

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
        ranking = self.ranking
        parts = (self, self.state, ranking, ranking.hits, ranking.groups)
        groups = (part for key, group in ranking.groups.items() for part in (key, group))
        hits = (part for hit in ranking.hits for part in (hit, hit.index, hit.doc_id, hit.score))
        return sum(map(sys.getsizeof, (*parts, *groups, *hits)))


class RankingCache:
    """Rankings that serve once more: the same caller asks the same, and the cluster still answers the same.

    It keeps them for `ranking_ttl_s`, in no more than `ranking_cache_bytes`; with a time of 0 it keeps none. What is
    kept are ids and scores, never a document: every page shows hits that the cluster gives this caller now. A ranking
    serves again only if the application's own query, which each search asks anew, still has the same total and the
    same best score. Documents written or deleted since move one of the two: Lucene's scores depend on how many
    documents there are. So do other permissions, and whoever may not search any longer gets the cluster's refusal.
    Searches for the same ranking at the same time wait for the first of them.
    """

    def __init__(
        self, ranker: Ranker, settings: ProxySettings, metrics: Metrics, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._ranker = ranker
        self._kept: TTLCache[bytes, _Kept] = TTLCache(
            settings.ranking_cache_bytes, settings.ranking_ttl_s, timer=clock, getsizeof=lambda kept: kept.size
        )
        self._under_way: dict[bytes, asyncio.Event] = {}
        self._per_request_headers = settings.per_request_headers
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
        if own_body is None or self._kept.ttl == 0 or plan.explain or plan.passage or plan.sentences:
            return await self._ranker.rank(plan)
        key = self._key(plan, reranks=plan.request.start < reranked_documents(plan.profile, plan.stage))
        if (under_way := self._under_way.get(key)) is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(plan.deadline - plan.budget_s * _WAITING_SHARE):
                    await under_way.wait()
        kept = self._kept.get(self._key(plan, reranks=True)) or self._kept.get(key)
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
                groups = {hit.key: ranking.groups[hit.key] for hit in hits} if ranking.groups else {}
                shared = replace(ranking, hits=hits, groups=groups, legs={}, passages={}, embedding=None, terms={})
                with contextlib.suppress(ValueError):  # larger than all that may be kept
                    self._kept[key] = _Kept(state, plan.profile, shared)
            return ranked
        finally:
            ended.set()
            if self._under_way.get(key) is ended:
                del self._under_way[key]

    def _key(self, plan: Plan, *, reranks: bool) -> bytes:
        """Cache key: the caller and everything the ranking depends on except the profile. Pages past the reranked
        depth may reuse a reranked entry."""
        request = plan.request
        search = (plan.expression, plan.stage, reranks, request.query, request.post_filter, request.min_score)
        distance = (plan.distance.cutoff, plan.distance.fallback)
        more = (request.timeout, dict(request.scope), request.collapse and request.collapse.field, distance)
        caller = identity(plan.caller, self._per_request_headers)
        return caller + hashlib.sha256(msgspec.json.encode((search, more))).digest()


def _state(own_body: bytes) -> bytes | None:
    """Total and best score; None if the answer tells too little to notice a change."""
    try:
        answer = decode_answer(own_body, _Answer)
    except msgspec.DecodeError:
        return None
    if answer.hits.max_score is None or answer.timed_out or answer.shards.failed:
        return None
    return b"%b %r" % (bytes(answer.hits.total), answer.hits.max_score)
