"""What each stage is worth on judged queries: measured through the proxy, compared with the first stage."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from opensearchpy import OpenSearch

from bridge.evaluation.measures import Evaluation, Qrels, evaluate, randomisation_test
from bridge.evaluation.stage_runs import StageRun, StageUnavailable, run_stage
from bridge.profile import Stage

NAMES: dict[str, Stage] = {
    "bm25": "lexical",
    "expansion": "expansion",
    "vector": "vector",
    "hybrid": "hybrid",
    "rerank": "rerank",
    "cascade": "cascade",
}
"""Stages by the names that tables and JSON show, in the order in which they are measured."""

REPORTED = {"ndcg@10": "nDCG@10", "mrr@10": "RR@10", "recall@100": "R@100"}
"""Names in JSON, and in the notation of ir-measures."""


@dataclass(frozen=True, slots=True)
class StageResult:
    """One stage's answers and their worth. `p_value`: against the first stage that was measured, by the paired
    randomisation test on the first of the measures; None for that stage itself."""

    name: str
    run: StageRun
    evaluation: Evaluation
    p_value: float | None

    @property
    def stage(self) -> Stage:
        """As profiles and the proxy call it."""
        return NAMES[self.name]

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
    names: Sequence[str],
    body_of: Callable[[str], dict[str, Any]],
    say: Callable[[str], object],
    measures: Sequence[str] = tuple(REPORTED.values()),
    own_documents: Collection[str] = frozenset(),
    on_query: Callable[[], object] = lambda: None,
) -> list[StageResult]:
    """Puts every query to every stage, in the order of `names`, and calls `on_query` after each search.

    A stage that this stack cannot reach is left out, and `say` told why. `own_documents`: queries that are
    documents themselves (see `JudgedQueries`).

    Raises:
        AnswerNotUnderstood: the proxy did not serve a search.
    """
    results: list[StageResult] = []
    for name in names:
        try:
            run = run_stage(proxy, index, queries, stage=NAMES[name], body_of=body_of, on_query=on_query)
        except StageUnavailable as unavailable:
            say(f"stage {name} is left out: {unavailable}")
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
        results.append(StageResult(name, run, evaluation, p_value))
    return results
