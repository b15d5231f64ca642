"""Measures each stage on judged queries: sends them through the proxy as an application would, up to that stage."""

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from time import perf_counter
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from opensearchpy import OpenSearch

from bridge.cluster.connection import exchange
from bridge.errors import AnswerNotUnderstood, BridgeError
from bridge.evaluation.measures import Evaluation, Qrels, evaluate, randomisation_test
from bridge.profile import Stage
from bridge.search.flow import CONFIDENT

STAGES: tuple[Stage, ...] = ("lexical", "expansion", "vector", "hybrid", "smoothing", "rerank", "cascade")
"""In the order of measurement."""

REPORTED = {"ndcg@10": "nDCG@10", "mrr@10": "RR@10", "recall@100": "R@100"}
"""Names in JSON, and in the notation of ir-measures."""

CONTROL_HEADER = "x-bridge"
MARKER_HEADER = "x-bridge"

WARM_UP = 10
"""Searches before the measured ones, because the first after a start are slower."""

_OF_THE_STACK = frozenset(
    {
        "canary",
        "cluster_unavailable",
        "index_expression",
        "mapping_unreadable",
        "no_profile",
        "off",
        "profile_unreadable",
        "profiles_differ",
        "signed",
        "unmarked",
    }
)
"""Pass reasons that concern the stack, not the query (see `bridge.search.reasons`)."""


class StageUnavailable(BridgeError):
    """No search reached the requested stage."""


@dataclass(frozen=True, slots=True)
class StageRun:
    """The answers of a stage.

    `rankings`: doc_ids by query_id, best first; empty if the cluster refused the search. `took_ms`: float64,
    (n_queries,), wall-clock time of each search at the client, in the order of the queries. `degraded`: number of
    searches that an earlier stage answered. `left_alone`: number of searches that the proxy passed unchanged, by
    reason; `refused`: number of searches that the cluster refused, by status.
    """

    stage: Stage
    rankings: Mapping[str, list[str]]
    took_ms: NDArray[np.float64]
    degraded: int = 0
    left_alone: Mapping[str, int] = field(default_factory=dict)
    refused: Mapping[int, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Search:
    """One answered search. `marker`: the proxy's header; `doc_ids`: None if the cluster refused."""

    status: int
    marker: str
    doc_ids: list[str] | None
    took_ms: float

    def reached(self, stage: Stage) -> bool:
        """Whether the stage answered, with nothing left out."""
        if self.left_alone is not None:
            # The lexical stage is the application's own search, which the proxy has no reason to touch.
            return stage == "lexical"
        named = stage in ("sparse", "image", "smoothing", "rerank", "cascade")
        named = named and bool(self.doc_ids) and CONFIDENT not in self.marker
        return "degraded=" not in self.marker and (not named or stage in self.marker)

    @property
    def left_alone(self) -> str | None:
        """The reason why the proxy passed the search; None if it did not."""
        if not self.marker:
            return "unmarked"
        if not self.marker.startswith("pass"):
            return None
        return self.marker.partition("reason=")[2].partition(";")[0]


def run_stage(
    client: OpenSearch,
    index: str,
    queries: Mapping[str, str],
    *,
    stage: Stage,
    body_of: Callable[[str], dict[str, Any]],
    on_query: Callable[[], object] = lambda: None,
) -> StageRun:
    """Sends each query once, one after the other, through `client`, which points at the proxy.

    Args:
        queries: text by query_id.
        body_of: query text → search body, `size` included.
        on_query: called after each search.

    Raises:
        AnswerNotUnderstood: the proxy lets searches of this index pass instead of serving them, or the cluster
            refuses them all.
        StageUnavailable: none of the first searches reached the stage.
    """
    warm_up = [_search(client, index, stage, body_of(text)) for text in islice(queries.values(), WARM_UP)]
    if all(search.doc_ids is None for search in warm_up):
        raise AnswerNotUnderstood(
            f"stage {stage}: the cluster answers every search of index {index} with status {warm_up[0].status}: does "
            f"the index exist, may this user search it, is the search body right?"
        )
    if all(search.left_alone in _OF_THE_STACK for search in warm_up):
        raise AnswerNotUnderstood(
            f"stage {stage}: {MARKER_HEADER} of the answers is {warm_up[0].marker!r}, expected the stage: is the "
            f"address the proxy's, and index {index} enriched?"
        )
    if not any(search.reached(stage) for search in warm_up):
        raise StageUnavailable(f"the proxy answers {MARKER_HEADER}: {warm_up[0].marker}")
    rankings: dict[str, list[str]] = {}
    took_ms = np.zeros(len(queries))
    degraded = 0
    left_alone: Counter[str] = Counter()
    refused: Counter[int] = Counter()
    for row, (query_id, text) in enumerate(queries.items()):
        search = _search(client, index, stage, body_of(text))
        rankings[query_id], took_ms[row] = search.doc_ids or [], search.took_ms
        if search.doc_ids is None:
            refused[search.status] += 1
        elif search.left_alone is not None and stage != "lexical":
            left_alone[search.left_alone] += 1
        else:
            degraded += not search.reached(stage)
        on_query()
    return StageRun(stage, rankings, took_ms, degraded, left_alone, refused)


def _search(client: OpenSearch, index: str, stage: Stage, body: dict[str, Any]) -> _Search:
    content = msgspec.json.encode({**body, "_source": False})
    begun = perf_counter()
    answer = exchange(client, "POST", f"/{index}/_search", body=content, headers={CONTROL_HEADER: stage})
    took_ms = (perf_counter() - begun) * 1000
    marker = answer.headers.get(MARKER_HEADER, "")
    if answer.status != 200:
        return _Search(answer.status, marker, None, took_ms)
    hits = msgspec.json.decode(answer.body)["hits"]["hits"]
    return _Search(answer.status, marker, [hit["_id"] for hit in hits], took_ms)


def shown_name(stage: Stage) -> str:
    """The name of a stage in tables, JSON and `--require`: the application's own query is `bm25`."""
    return "bm25" if stage == "lexical" else stage


@dataclass(frozen=True, slots=True)
class StageResult:
    """One stage's answers, and the measures of each query.

    `name`: in tables and JSON. `p_value`: against the first measured stage, by the paired randomisation test on the
    first measure; None for that stage itself.
    """

    name: str
    run: StageRun
    evaluation: Evaluation
    p_value: float | None

    @property
    def stage(self) -> Stage:
        """The measured stage."""
        return self.run.stage

    def latencies(self) -> tuple[float, float]:
        """Median and 95th percentile of a search at the client, in milliseconds."""
        p50, p95 = np.percentile(self.run.took_ms, [50, 95])
        return float(p50), float(p95)

    def figures(self) -> dict[str, float]:
        """Means of the reported measures, and latencies in milliseconds at the client."""
        p50, p95 = self.latencies()
        means = {name: round(self.evaluation.mean(measure), 4) for name, measure in REPORTED.items()}
        return {**means, "p50_ms": round(p50, 1), "p95_ms": round(p95, 1)}


def measure_stages(
    proxy: OpenSearch,
    index: str,
    *,
    queries: Mapping[str, str],
    qrels: Qrels,
    stages: Sequence[Stage],
    body_of: Callable[[str], dict[str, Any]],
    say: Callable[[str], object],
    measures: Sequence[str] = tuple(REPORTED.values()),
    own_documents: Collection[str] = frozenset(),
    on_query: Callable[[], object] = lambda: None,
) -> list[StageResult]:
    """Sends every query at every stage, in order, and calls `on_query` after each search.

    Leaves out a stage that the proxy cannot reach and calls `say` with the reason. `own_documents`: queries that are
    documents themselves (see `JudgedQueries`).

    Raises:
        AnswerNotUnderstood: the proxy did not serve a search.
    """
    results: list[StageResult] = []
    for stage in stages:
        try:
            run = run_stage(proxy, index, queries, stage=stage, body_of=body_of, on_query=on_query)
        except StageUnavailable as unavailable:
            say(f"stage {shown_name(stage)} is left out: {unavailable}")
            continue
        rankings = {
            query_id: [doc_id for doc_id in ranking if doc_id != query_id] if query_id in own_documents else ranking
            for query_id, ranking in run.rankings.items()
        }
        evaluation = evaluate(qrels, rankings, measures)
        p_value = None
        if results:
            tested = measures[0]
            p_value = randomisation_test(evaluation.values[tested], results[0].evaluation.values[tested])
        results.append(StageResult(shown_name(stage), run, evaluation, p_value))
    return results
