"""Compares the vectors of a new generation with those of the serving one, by judged queries, before a cutover."""

from collections.abc import Callable, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray
from opensearchpy import OpenSearch

from bridge.cluster import dialects
from bridge.evaluation.judged_queries import JudgedQueries
from bridge.evaluation.measures import bootstrap_interval, evaluate, randomisation_test
from bridge.profile import IndexProfile

_MEASURE = "nDCG@10"
_HITS = 10

Embed = Callable[[str, str], Sequence[float]]
"""Query text, identity of an encoder → embedding."""


class GenerationQuality(msgspec.Struct, frozen=True):
    """k-NN search alone with the vectors of two generations, over the same judged queries: both means of the measure,
    the difference (other - serving), its 95 % bootstrap interval, and the p-value of a paired randomisation test."""

    judgements: str
    queries: int
    measure: str
    serving_mean: float
    other_mean: float
    difference: float
    low: float
    high: float
    p_value: float

    @property
    def is_worse(self) -> bool:
        """Whether the other generation is significantly worse: the whole interval lies below zero."""
        return self.high < 0


def compare_generations(
    client: OpenSearch,
    judged: JudgedQueries,
    *,
    serving: tuple[str, IndexProfile],
    other: tuple[str, IndexProfile],
    embed: Embed,
) -> GenerationQuality:
    """Searches every judged query with the vectors of both generations, each by the name of the index that holds it and
    by its profile.

    Raises:
        BridgeError: as raised by `embed`.
    """
    first, second = (_measured(client, index, judged, profile, embed) for index, profile in (serving, other))
    interval = bootstrap_interval(second - first)
    return GenerationQuality(
        judgements=judged.source,
        queries=len(judged.queries),
        measure=_MEASURE,
        serving_mean=float(first.mean()),
        other_mean=float(second.mean()),
        difference=interval.mean,
        low=interval.low,
        high=interval.high,
        p_value=randomisation_test(second, first),
    )


def _measured(
    client: OpenSearch, index: str, judged: JudgedQueries, profile: IndexProfile, embed: Embed
) -> NDArray[np.float64]:
    """The measure of each query, (n_queries,), in their order."""
    run = {
        query_id: _nearest(client, index, profile, embed(text, profile.encoder.identity))
        for query_id, text in judged.queries.items()
    }
    return evaluate(judged.qrels, run, [_MEASURE]).values[_MEASURE]


def _nearest(client: OpenSearch, index: str, profile: IndexProfile, embedding: Sequence[float]) -> list[str]:
    query = dialects.nearest(profile, embedding, k=profile.window, allowed={})
    body = {"size": _HITS, "query": query, "_source": False, "track_total_hits": False}
    return [hit["_id"] for hit in client.search(index=index, body=body)["hits"]["hits"]]
