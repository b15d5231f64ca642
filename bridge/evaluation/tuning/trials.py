"""Evaluates settings on cached searches: rankings, quality and estimated times."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bridge.evaluation.application_query import DEPTH
from bridge.evaluation.judged_queries import JudgedQueries
from bridge.evaluation.measures import evaluate
from bridge.evaluation.tuning.answers import Costs, RememberedSearch
from bridge.evaluation.tuning.setting import Setting
from bridge.profile import IndexProfile
from bridge.records import Key
from bridge.search import flow
from bridge.search.collapse import first_of_each, groups_of
from bridge.search.flow import CONFIDENT


@dataclass(frozen=True, slots=True)
class Trial:
    """A setting and its results. `values`: the measure; `took_ms`: estimated time; float64, (n_queries,), in query
    order."""

    setting: Setting
    values: NDArray[np.float64]
    took_ms: NDArray[np.float64]

    def mean(self, rows: NDArray[np.intp]) -> float:
        """The mean of the measure over some queries."""
        return float(self.values[rows].mean())

    def p95_ms(self, rows: NDArray[np.intp]) -> float:
        """The 95th percentile of the estimated times of some queries."""
        return float(np.percentile(self.took_ms[rows], 95))


class Trials:
    """Evaluates settings on the same queries, each setting once."""

    def __init__(
        self, searches: Sequence[RememberedSearch], profile: IndexProfile, judged: JudgedQueries, *, measure: str
    ) -> None:
        """`searches` have been measured; searches that the proxy passes are not among them, because no setting changes
        them."""
        self.searches = searches
        self._profile = profile
        self._qrels = {search.query_id: judged.qrels[search.query_id] for search in searches}
        self._own_documents = judged.own_documents
        self._measure = measure
        self._tried: dict[Setting, Trial] = {}

    def tried(self) -> Sequence[Trial]:
        """All trials so far."""
        return list(self._tried.values())

    def estimated_p95_ms(self, setting: Setting) -> float:
        """The estimated 95th percentile over all queries without a trial, from the times so far; 0 before anything was
        read."""
        return float(np.percentile([estimated_ms(setting, search.costs) for search in self.searches], 95))

    def of(self, setting: Setting) -> Trial:
        """The trial of a setting, cached."""
        if setting not in self._tried:
            self._tried[setting] = asyncio.run(self._try(setting))
        return self._tried[setting]

    async def _try(self, setting: Setting) -> Trial:
        profile = setting.applied_to(self._profile)
        rankings: dict[str, list[str]] = {}
        took_ms = np.zeros(len(self.searches))
        for row, search in enumerate(self.searches):
            ranking, took_ms[row] = await _rank(setting, profile, search)
            itself = search.query_id if search.query_id in self._own_documents else None
            rankings[search.query_id] = [doc_id for _, doc_id in ranking if doc_id != itself]
        values = evaluate(self._qrels, rankings, [self._measure]).values[self._measure]
        return Trial(setting, values, took_ms)


async def _rank(setting: Setting, profile: IndexProfile, search: RememberedSearch) -> tuple[Sequence[Key], float]:
    """The first documents in the order of the proxy's answer, the ranking first and then the application's own results;
    and the estimated time in milliseconds."""
    groups = groups_of(search.own, search.request.collapse)
    own = [hit.key for hit in first_of_each(search.own, groups)]
    if setting.stage == "lexical":
        return own[:DEPTH], estimated_ms(setting, search.costs)
    ranking = await flow.rank(search.request, profile, setting.stage, search.by(profile))
    ranked = [hit.key for hit in ranking.hits]
    inside = {ranking.groups.get(key, key) for key in ranked}
    # A confident text leg needs no cross-encoder.
    reached = replace(setting, stage="hybrid") if ranking.stages.endswith(CONFIDENT) else setting
    return [*ranked, *(key for key in own if groups[key] not in inside)][:DEPTH], estimated_ms(reached, search.costs)


def estimated_ms(setting: Setting, costs: Costs) -> float:
    """Estimated duration of a search from the times of its parts: the legs beside the application's own search, then
    texts and scores. Leaves out the proxy's own few milliseconds."""
    if setting.stage == "lexical":
        return costs.own
    if setting.stage == "expansion":
        return max(costs.own, costs.text_leg)
    further = {"sparse": costs.weigh, "image": costs.embed_image}
    used = [ms for leg, ms in further.items() if dict(setting.weights).get(leg, 0) > 0]
    legs_ms = max(costs.own, max([costs.embed, *used]) + (costs.all_legs if used else costs.hybrid_legs))
    if setting.stage == "rerank":
        return legs_ms + setting.depth * (costs.texts.each_ms + setting.passages * costs.large.each_ms)
    if setting.stage == "cascade":
        read = setting.cascade_candidates * (costs.texts.each_ms + costs.small.each_ms)
        return legs_ms + read + setting.cascade_depth * costs.large.each_ms
    return legs_ms
