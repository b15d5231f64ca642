"""From an understood search to a ranking: embed, one `_msearch` of legs, fuse, rerank.

Whatever fails here only takes its stage out of the ranking; the reasons are kept. All requests to the
cluster carry the caller's identity.
"""

from collections.abc import Mapping, Sequence

import msgspec
import structlog
from cachetools import TTLCache

from bridge.errors import AnswerNotUnderstood, CascadeMissing, StageFailed
from bridge.proxy.upgrade.cluster_client import OwnSearches, scope
from bridge.proxy.upgrade.model_client import Sidecar
from bridge.proxy.upgrade.planning import Plan
from bridge.proxy.upgrade.ranked import Ranked
from bridge.proxy.upgrade.reranking import Reranker
from bridge.records import Hit, RankedHit
from bridge.search import legs
from bridge.search.confidence import CONFIDENT, confident_leg
from bridge.search.fusion import LegRankings, fuse, leg_weights
from bridge.search.json_tree import Json
from bridge.search.reranking import first_stage
from bridge.search.response import leg_rankings

log = structlog.get_logger(__name__)

# Of the budget: what embedding may take, so that text legs can still be asked when it fails late.
_EMBEDDING_SHARE = 0.4
_SAME_REASON_S = 10.0


class Ranker:
    """Ranks by means of the cluster and the sidecar."""

    def __init__(self, searches: OwnSearches, sidecar: Sidecar) -> None:
        self._searches = searches
        self._sidecar = sidecar
        self._reranker = Reranker(searches, sidecar)
        self._told: TTLCache[str, None] = TTLCache(1000, _SAME_REASON_S)

    async def rank(self, plan: Plan) -> Ranked:
        """The ranking for a plan, as far as it could be made; with no hits where no leg answered."""
        ranked = Ranked()
        await self._rank(plan, ranked)
        for failure in ranked.failures:
            self._tell(failure)
        return ranked

    async def _rank(self, plan: Plan, ranked: Ranked) -> None:
        weights = leg_weights(plan.profile, plan.stage)
        found = await self._run_legs(plan, sorted(weights.keys() | _told_legs(plan)), ranked)
        if plan.request.min_score is not None and "vector" in found:
            found["vector"] = _reaching_min_score(found)
        ranked.found = found
        confident = confident_leg(found, weights, plan.profile.rules.confident_lead)
        if confident is not None:
            weights = {confident: 1.0}
        live = [leg for leg in found if weights.get(leg, 0) > 0]
        if not live:
            return
        with ranked.timed("fuse"):
            settings = msgspec.structs.replace(plan.profile.fusion, weights=weights)
            fused = fuse(found, settings, window=plan.profile.window)
        ranked.hits = first_stage(fused)
        ranked.complete = _holds_all_matches(plan, found, weights)
        ranked.stages = "hybrid" if len(live) > 1 else live[0]
        if confident is not None:
            ranked.stages += CONFIDENT
        elif plan.request.start < reranked_documents(plan) and fused:
            await self._rerank(plan, fused, ranked)

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
                ranked.failures.append(failed)
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
                answer = await self._searches.msearch(plan, legs.msearch(bodies.values(), scope(plan)), stage="legs")
                found = leg_rankings(answer, list(bodies))
        except StageFailed as failed:
            ranked.failures.append(failed)
            return {}
        except AnswerNotUnderstood as error:
            ranked.failures.append(StageFailed("legs_unavailable", str(error)))
            return {}
        for leg, hits in found.items():
            if isinstance(hits, str):
                ranked.failures.append(StageFailed(f"{leg}_leg_failed", hits))
        return {leg: hits for leg, hits in found.items() if not isinstance(hits, str)}

    async def _rerank(self, plan: Plan, fused: Sequence[RankedHit], ranked: Ranked) -> None:
        try:
            if plan.stage == "cascade":
                try:
                    await self._reranker.cascade(plan, fused, ranked)
                    return
                except CascadeMissing as missing:
                    # The large cross-encoder alone reads fewer documents, and is still worth having.
                    ranked.failures.append(missing)
            await self._reranker.rerank(plan, fused, ranked)
        except StageFailed as failed:
            ranked.failures.append(failed)

    def _tell(self, failure: StageFailed) -> None:
        # An outage under load would write a line for every search; the metric counts them all.
        if failure.reason not in self._told:
            self._told[failure.reason] = None
            log.warning("stage left out", reason=failure.reason, detail=str(failure)[:500])


def reranked_documents(plan: Plan) -> int:
    """How many documents the cross-encoders order at the plan's stage: no page beyond them needs any."""
    settings = plan.profile.rerank
    match plan.stage:
        case "rerank":
            return settings.depth
        case "cascade":
            return max(settings.cascade.candidates, settings.depth)
    return 0


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
