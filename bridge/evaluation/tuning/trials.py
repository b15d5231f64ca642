"""What a setting makes of cached searches: rankings, their worth, and how long they would take."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from bridge.evaluation.application_query import DEPTH
from bridge.evaluation.judged_queries import JudgedQueries
from bridge.evaluation.measures import evaluate
from bridge.evaluation.tuning.cached_search import CachedSearch
from bridge.evaluation.tuning.setting import Setting
from bridge.profile import IndexProfile, Stage
from bridge.records import Hit, Key, RankedHit
from bridge.search.cascade import merge_scores, select_for_large_model
from bridge.search.confidence import confident_leg
from bridge.search.fusion import blended, fuse, leg_weights
from bridge.search.reranking import cascade, fused_scores, of_passages, rerank


class Readers(Protocol):
    """Has documents read by the cross-encoders; see `SearchCache`."""

    def read_large(self, search: CachedSearch, keys: Sequence[Key], *, n_passages: int) -> None:
        """Adds what is missing to `search.large`."""

    def read_small(self, search: CachedSearch, keys: Sequence[Key]) -> None:
        """Adds what is missing to `search.small`."""


@dataclass(frozen=True, slots=True)
class Trial:
    """A setting, tried. `values`: the measure; `took_ms`: estimated time; float64, (n_queries,), in one order."""

    setting: Setting
    values: NDArray[np.float64]
    took_ms: NDArray[np.float64]

    def mean(self, rows: NDArray[np.intp]) -> float:
        """Of the measure, over some queries."""
        return float(self.values[rows].mean())

    def p95_ms(self, rows: NDArray[np.intp]) -> float:
        """95th percentile of the estimated times of some queries."""
        return float(np.percentile(self.took_ms[rows], 95))


class Trials:
    """Tries settings on the same queries, each setting once."""

    def __init__(
        self,
        searches: Sequence[CachedSearch],
        readers: Readers,
        profile: IndexProfile,
        judged: JudgedQueries,
        *,
        measure: str,
    ) -> None:
        """Queries that the proxy leaves alone are none of `searches`: no setting changes them."""
        self.searches = searches
        self._readers = readers
        self._profile = profile
        self._qrels = {search.query_id: judged.qrels[search.query_id] for search in searches}
        self._own_documents = judged.own_documents
        self._measure = measure
        self._tried: dict[Setting, Trial] = {}

    def tried(self) -> Sequence[Trial]:
        """All trials so far."""
        return list(self._tried.values())

    def estimated_p95_ms(self, setting: Setting) -> float:
        """Of all queries, without trying it: by what was read so far, nothing before anything was."""
        return float(np.percentile([estimated_ms(setting, search) for search in self.searches], 95))

    def of(self, setting: Setting) -> Trial:
        """Tries a setting, or remembers it."""
        if setting not in self._tried:
            rankings: dict[str, list[str]] = {}
            took_ms = np.zeros(len(self.searches))
            for row, search in enumerate(self.searches):
                ranking, took_ms[row] = self._rank(setting, search)
                mine = search.query_id if search.query_id in self._own_documents else None
                rankings[search.query_id] = [doc_id for _, doc_id in ranking if doc_id != mine]
            values = evaluate(self._qrels, rankings, [self._measure]).values[self._measure]
            self._tried[setting] = Trial(setting, values, took_ms)
        return self._tried[setting]

    def _rank(self, setting: Setting, search: CachedSearch) -> tuple[Sequence[Key], float]:
        """The first documents in the order in which the proxy would answer, those of the window and after them the
        application's own results; and the estimated time in milliseconds."""
        own = [hit.key for hit in search.lexical]
        if setting.stage == "lexical":
            return own[:DEPTH], estimated_ms(setting, search)
        fused, is_confident = _fused(setting, search, self._profile)
        read: Stage = setting.stage
        if is_confident:
            read = "hybrid"  # no cross-encoder is asked
        elif setting.stage == "rerank":
            fused = rerank(fused, self._scores(setting, search, fused[: setting.depth]), setting.reranking())
        elif setting.stage == "cascade":
            scores = self._cascade_scores(setting, search, fused[: setting.cascade_candidates])
            fused = cascade(fused, scores, setting.reranking())
        ranking = [hit.key for hit in fused]
        inside = set(ranking)
        ranking += [key for key in own if key not in inside]
        return ranking[:DEPTH], estimated_ms(replace(setting, stage=read), search)

    def _scores(self, setting: Setting, search: CachedSearch, hits: Sequence[RankedHit]) -> dict[Key, float]:
        """One score per document that has a text."""
        keys = [hit.key for hit in hits]
        self._readers.read_large(search, keys, n_passages=setting.passages)
        read = {key: search.large[key][: setting.passages] for key in keys}
        return {key: of_passages(each, setting.passage_scores) for key, each in read.items() if each}

    def _cascade_scores(self, setting: Setting, search: CachedSearch, hits: Sequence[RankedHit]) -> dict[Key, float]:
        """One score per document, as the sidecar's cascade gives them: the large model's of the best, and the
        others' below these, as far apart as the small model puts them."""
        keys = [hit.key for hit in hits]
        self._readers.read_small(search, keys)
        read = [hit for hit in hits if search.small[hit.key]]
        if not read:
            return {}
        small = [search.small[hit.key][0] for hit in read]
        preferences = blended(small, fused_scores(read), setting.blend)
        best = select_for_large_model(small, depth=setting.cascade_depth, preferences=preferences)
        self._readers.read_large(search, [read[place].key for place in best], n_passages=1)
        scores = merge_scores(small, {place: search.large[read[place].key][0] for place in best})
        return dict(zip((hit.key for hit in read), scores, strict=True))


def _fused(setting: Setting, search: CachedSearch, profile: IndexProfile) -> tuple[list[RankedHit], bool]:
    """The fused ranking, and whether a text leg was confident enough to make it alone."""
    found: Mapping[str, Sequence[Hit]] = {
        "lexical": search.lexical,
        "expansion": search.expansion.get(setting.expansion_boost, ()),
        "vector": search.vector,
    }
    changed = setting.applied_to(profile)
    weights = leg_weights(changed, setting.stage)
    confident = confident_leg(found, weights, setting.lead)
    if confident is not None:
        weights = {confident: 1.0}
    rankings = {leg: found[leg][: setting.window] for leg in weights}
    fused = fuse(rankings, msgspec.structs.replace(changed.fusion, weights=weights), window=setting.window)
    return fused, confident is not None


def estimated_ms(setting: Setting, search: CachedSearch) -> float:
    """How long the search would take, from what its parts took: the legs beside the application's own search,
    then texts and scores. The proxy's own few milliseconds are not in it."""
    costs = search.costs
    if setting.stage == "lexical":
        return costs.own
    if setting.stage == "expansion":
        return max(costs.own, costs.text_leg)
    legs_ms = max(costs.own, costs.embed + costs.hybrid_legs)
    if setting.stage == "rerank":
        return legs_ms + setting.depth * (costs.texts.each_ms + setting.passages * costs.large.each_ms)
    if setting.stage == "cascade":
        read = setting.cascade_candidates * (costs.texts.each_ms + costs.small.each_ms)
        return legs_ms + read + setting.cascade_depth * costs.large.each_ms
    return legs_ms
