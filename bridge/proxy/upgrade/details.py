"""What an answer tells beyond its hits, where a request asks for it: matching predicted queries, and a total that
counts what the bridge found."""

from collections.abc import Sequence

from bridge.errors import StageFailed
from bridge.proxy.upgrade.cluster_client import OwnSearches
from bridge.proxy.upgrade.planning import Plan
from bridge.proxy.upgrade.ranking import Ranked
from bridge.records import Key
from bridge.search import legs
from bridge.search.response import highlighted


class Details:
    """Asks the cluster in the caller's name; what cannot be had is noted as a failure and left out."""

    def __init__(self, searches: OwnSearches) -> None:
        self._searches = searches

    async def predicted_queries(self, plan: Plan, keys: Sequence[Key], ranked: Ranked) -> dict[Key, list[str]]:
        """Of the given documents, the predicted queries that match the user's words, best first."""
        if plan.profile.generator is None or not keys:
            return {}
        body = legs.matching_predictions(plan.request, plan.profile, keys)
        try:
            hits = await self._searches.hits(plan, body, stage="explain", deadline=plan.deadline)
        except StageFailed as failed:
            ranked.notes.failures.append(failed)
            return {}
        return {hit.key: highlighted(hit, plan.profile.predicted_queries_field) for hit in hits}

    async def found_beyond(self, plan: Plan, ranked: Ranked) -> int:
        """How many documents of the ranking the application's own query does not match; none where that
        cannot be told."""
        keys = [hit.key for hit in ranked.ranking.hits]
        if not keys:
            return 0
        try:
            body = legs.matched(plan.request, keys)
            matched = await self._searches.hits(plan, body, stage="total", deadline=plan.deadline)
        except StageFailed as failed:
            ranked.notes.failures.append(failed)
            return 0
        return len(keys) - len(matched)
