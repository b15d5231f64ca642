"""From an understood search to a ranking: embed, one `_msearch` of legs, fuse, rerank.

Whatever fails here only takes its stage out of the ranking; the reasons are kept. All requests to the
cluster carry the caller's identity.
"""

import asyncio
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import urlencode

import aiohttp
import msgspec
import structlog
from cachetools import TTLCache

from bridge.errors import AnswerNotUnderstood
from bridge.proxy.headers import of_a_leg
from bridge.proxy.planning import Plan
from bridge.proxy.refusals import Refused
from bridge.proxy.sidecar import Sidecar, StageFailed
from bridge.proxy.upstream import Upstream
from bridge.records import Hit, Passage, RankedHit
from bridge.search import json_tree, legs
from bridge.search.fusion import LegRankings, fuse
from bridge.search.json_tree import Json
from bridge.search.reranking import first_stage, rerank
from bridge.search.response import ShownHit, found_hits, leg_rankings, nearest_passage, source_texts

log = structlog.get_logger(__name__)

# Of the budget: what embedding may take, so that text legs can still be asked when it fails late; and what
# reranking leaves for showing the hits that it brought up.
_EMBEDDING_SHARE = 0.4
_SHOWING_SHARE = 0.15
_SAME_REASON_S = 10.0
# More than a cross-encoder reads of a passage; the rest of a long text need not travel.
_READ_CHARS = 2_000


@dataclass(slots=True)
class Ranked:
    """A ranking and how it came about.

    `complete`: every document that the application's own query matches is in it. `stages`: what took
    part, for example `hybrid+rerank`; `degraded`: why something did not; `timings_ms` by stage.
    `found`: what each leg found; `passages`: of documents with several, the one that the cross-encoder read.
    """

    hits: Sequence[RankedHit] = ()
    complete: bool = False
    stages: str = "lexical"
    degraded: list[str] = field(default_factory=list)
    timings_ms: dict[str, float] = field(default_factory=dict)
    found: LegRankings = field(default_factory=dict)
    passages: dict[legs.Key, Passage] = field(default_factory=dict)
    embedding: Sequence[float] | None = None

    def fall_back(self, reason: str) -> None:
        """Notes that the application's own answer is given after all."""
        self.stages = "lexical"
        self.degraded.append(reason)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Adds the block's time to `timings_ms`."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        try:
            yield
        finally:
            self.timings_ms[stage] = self.timings_ms.get(stage, 0.0) + (loop.time() - started) * 1000


class Ranker:
    """Ranks by means of the cluster and the sidecar."""

    def __init__(self, upstream: Upstream, sidecar: Sidecar) -> None:
        self._upstream = upstream
        self._sidecar = sidecar
        self._told: TTLCache[str, None] = TTLCache(1000, _SAME_REASON_S)

    async def rank(self, plan: Plan) -> Ranked:
        """The ranking for a plan, as far as it could be made; with no hits where no leg answered."""
        ranked = Ranked()
        weights = _weights(plan)
        found = await self._run_legs(plan, sorted(weights.keys() | _told_legs(plan)), ranked)
        if plan.request.min_score is not None and "vector" in found:
            found["vector"] = _reaching_min_score(found)
        ranked.found = found
        live = [leg for leg in found if weights.get(leg, 0) > 0]
        if not live:
            return ranked
        with ranked.timed("fuse"):
            settings = msgspec.structs.replace(plan.profile.fusion, weights=weights)
            fused = fuse(found, settings, window=plan.profile.window)
        ranked.hits = first_stage(fused)
        ranked.complete = _holds_all_matches(plan, found, weights)
        ranked.stages = "hybrid" if len(live) > 1 else live[0]
        if plan.stage == "rerank" and plan.request.start < plan.profile.rerank.depth and fused:
            await self._rerank(plan, fused, ranked)
        return ranked

    async def show(self, plan: Plan, body: Json) -> list[ShownHit]:
        """The hits of a search that shows documents as the application wants them.

        Raises:
            StageFailed: `hits_unavailable`, `hits_slow`.
        """
        parameters = {**plan.request.url_presentation, **_scope(plan)}
        deadline = max(plan.deadline, asyncio.get_running_loop().time() + plan.budget_s * _SHOWING_SHARE)
        answer = await self._ask(plan, "_search", parameters, json_tree.write(body), "hits", deadline)
        try:
            return found_hits(answer)
        except AnswerNotUnderstood as error:
            raise StageFailed("hits_unavailable", str(error)) from error

    async def _run_legs(self, plan: Plan, names: Sequence[str], ranked: Ranked) -> dict[str, Sequence[Hit]]:
        bodies: dict[str, Json] = {}
        if "lexical" in names:
            bodies["lexical"] = legs.lexical(plan.request, plan.profile)
        if "expansion" in names:
            bodies["expansion"] = legs.expansion(plan.request, plan.profile)
        if "vector" in names:
            try:
                with ranked.timed("embed"):
                    ranked.embedding = await self._sidecar.embed(
                        plan.request.text,
                        dimension=plan.profile.dimension,
                        identity=plan.profile.encoder.identity,
                        deadline=plan.deadline - plan.budget_s * (1 - _EMBEDDING_SHARE),
                    )
                bodies["vector"] = legs.vector(plan.request, plan.profile, ranked.embedding)
            except StageFailed as failed:
                self._degrade(ranked, failed)
        found = await self._msearch(plan, bodies, ranked) if bodies else {}
        if ranked.embedding is not None and "vector" in found and len(found["vector"]) < plan.profile.window:
            # Few documents are allowed, or document-level security hid the nearest: only a full
            # comparison tells, and among few documents it costs little.
            exact = {"vector": legs.exact_vector(plan.request, plan.profile, ranked.embedding)}
            found |= await self._msearch(plan, exact, ranked)
        if not found.get("vector"):
            # Vectors that the caller may not see are not compared with anything further on either.
            ranked.embedding = None
        return found

    async def _msearch(self, plan: Plan, bodies: Mapping[str, Json], ranked: Ranked) -> dict[str, Sequence[Hit]]:
        """The hits of each leg that could be had."""
        try:
            with ranked.timed("legs"):
                body = legs.msearch(bodies.values(), _scope(plan))
                answer = await self._ask(plan, "_msearch", {}, body, "legs", plan.deadline)
                found = leg_rankings(answer, list(bodies))
        except StageFailed as failed:
            self._degrade(ranked, failed)
            return {}
        except AnswerNotUnderstood as error:
            self._degrade(ranked, StageFailed("legs_unavailable", str(error)))
            return {}
        for leg, hits in found.items():
            if isinstance(hits, str):
                self._degrade(ranked, StageFailed(f"{leg}_leg_failed", hits))
        return {leg: hits for leg, hits in found.items() if not isinstance(hits, str)}

    async def _rerank(self, plan: Plan, fused: Sequence[RankedHit], ranked: Ranked) -> None:
        deadline = plan.deadline - plan.budget_s * _SHOWING_SHARE
        settings = plan.profile.rerank
        try:
            with ranked.timed("texts"):
                candidates = [hit.key for hit in fused[: settings.depth]]
                passages = await self._texts(plan, candidates, ranked, deadline)
            with ranked.timed("rerank"):
                scores = await self._sidecar.rerank(plan.request.text, list(passages.values()), deadline=deadline)
        except StageFailed as failed:
            self._degrade(ranked, failed)
            return
        ranked.hits = rerank(fused, dict(zip(passages, scores, strict=True)), settings)
        ranked.stages += "+rerank"

    async def _texts(
        self, plan: Plan, keys: Sequence[legs.Key], ranked: Ranked, deadline: float
    ) -> dict[legs.Key, str]:
        """What to read of each document, in the order of `keys`: its text, or its nearest passage.

        A document without text that the caller may see cannot be judged; it is left out, and stays behind
        those that can.

        Raises:
            StageFailed: no text could be had.
        """
        body = json_tree.write(legs.texts(plan.profile, keys, ranked.embedding))
        answer = await self._ask(plan, "_search", _scope(plan), body, "texts", deadline)
        fields = [text_field.name for text_field in plan.profile.text_fields]
        try:
            hits = found_hits(answer)
            texts = {hit.key: source_texts(hit, fields) for hit in hits}
        except (AnswerNotUnderstood, ValueError) as error:
            raise StageFailed("texts_unavailable", str(error)) from error
        for hit in hits:
            offsets = nearest_passage(hit, plan.profile.passages_field)
            # Where the caller sees less of the text than was embedded, offsets lead nowhere.
            if offsets is not None and (text := texts[hit.key][slice(*offsets)]):
                ranked.passages[hit.key] = Passage(text, *offsets)
                texts[hit.key] = text
        visible = {key: texts[key][:_READ_CHARS] for key in keys if texts.get(key)}
        if not visible:
            raise StageFailed("texts_hidden", "the caller may see no text of the documents found")
        return visible

    async def _ask(
        self, plan: Plan, endpoint: str, parameters: Mapping[str, str], body: bytes, stage: str, deadline: float
    ) -> bytes:
        query = f"?{urlencode(parameters)}" if parameters else ""
        target = f"/{plan.expression}/{endpoint}{query}"
        try:
            async with asyncio.timeout_at(deadline):
                answer = await self._upstream.send("POST", target, of_a_leg(plan.caller), body)
                async with answer:
                    content = await answer.read()
        except TimeoutError as error:
            raise StageFailed(f"{stage}_slow", f"the cluster did not answer {endpoint} within the budget") from error
        except (Refused, aiohttp.ClientError) as error:
            raise StageFailed(f"{stage}_unavailable", str(error)) from error
        if answer.status in (401, 403):
            raise StageFailed(f"{stage}_forbidden", f"the cluster refused {endpoint} to the caller")
        if answer.status != 200:
            raise StageFailed(f"{stage}_unavailable", f"the cluster answered {endpoint} with status {answer.status}")
        return content

    def _degrade(self, ranked: Ranked, failed: StageFailed) -> None:
        ranked.degraded.append(failed.reason)
        # An outage under load would write a line for every search; the metric counts them all.
        if failed.reason not in self._told:
            self._told[failed.reason] = None
            log.warning("stage left out", reason=failed.reason, detail=str(failed)[:500])


def _weights(plan: Plan) -> dict[str, float]:
    """Leg → weight, for the stage at which the search stops.

    Where nothing was expanded the application's own query takes the place of the expansion leg.
    """
    text_leg = "expansion" if plan.profile.generator is not None else "lexical"
    match plan.stage:
        case "expansion" | "lexical":
            return {text_leg: 1.0}
        case "vector":
            return {"vector": 1.0}
    weights = dict(plan.profile.fusion.weights)
    if text_leg == "lexical":
        weights["lexical"] = max(weights.get("lexical", 0.0), weights.pop("expansion", 0.0))
    return {leg: weight for leg, weight in weights.items() if weight > 0}


def _told_legs(plan: Plan) -> set[str]:
    """Legs that take no part in the fusion, and are run so that an explanation can tell of them."""
    return {"lexical"} if plan.explain else set()


def _reaching_min_score(found: LegRankings) -> list[Hit]:
    """The vector leg's hits that a text leg found too: only those are known to reach `min_score`."""
    reaching = {hit.key for leg in ("lexical", "expansion") for hit in found.get(leg, ())}
    return [hit for hit in found["vector"] if hit.key in reaching]


def _holds_all_matches(plan: Plan, found: LegRankings, weights: Mapping[str, float]) -> bool:
    """Whether no document that the application's query matches was cut off, so that there is no tail."""
    window = plan.profile.window
    merged = {hit.key for leg, hits in found.items() if weights.get(leg, 0) > 0 for hit in hits}
    text_legs = [leg for leg in ("lexical", "expansion") if leg in found and weights.get(leg, 0) > 0]
    return len(merged) <= window and any(len(found[leg]) < window for leg in text_legs)


def _scope(plan: Plan) -> dict[str, str]:
    """The application's routing and the like; and the same copies of the shards for every page."""
    by_query = hashlib.sha256(plan.request.text.encode()).hexdigest()[:16]
    return {"preference": f"bridge-{by_query}", **plan.request.scope}
