"""What each stage is worth on judged queries: measured through the proxy, compared with BM25 alone."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from opensearchpy import OpenSearch

from bridge.evaluation.measures import Evaluation, evaluate, randomisation_test
from bridge.evaluation.stage_runs import StageRun, run_stage
from bridge.profile import Stage

NAMES: dict[str, Stage] = {
    "bm25": "lexical",
    "expansion": "expansion",
    "vector": "vector",
    "hybrid": "hybrid",
    "rerank": "rerank",
}
"""Stages by the names that tables and JSON show, in the order in which they build on each other."""

REPORTED = {"ndcg@10": "nDCG@10", "mrr@10": "RR@10", "recall@100": "R@100"}
"""Names in JSON, and in the notation of ir-measures."""


@dataclass(frozen=True, slots=True)
class StageResult:
    """One stage's answers and their worth. `p_value`: of its nDCG@10 against the first stage that was
    measured, by the paired randomisation test; None for that one itself."""

    name: str
    run: StageRun
    evaluation: Evaluation
    p_value: float | None

    def figures(self) -> dict[str, float]:
        """Means of the reported measures, and latencies in milliseconds at the client."""
        p50, p95 = np.percentile(self.run.took_ms, [50, 95])
        return {
            **{name: round(self.evaluation.mean(measure), 4) for name, measure in REPORTED.items()},
            "p50_ms": round(float(p50), 1),
            "p95_ms": round(float(p95), 1),
        }


def measure_stages(
    proxy: OpenSearch,
    index: str,
    *,
    queries: Mapping[str, str],
    qrels: Mapping[str, Mapping[str, int]],
    names: Sequence[str],
    body_of: Callable[[str], dict[str, Any]],
    on_query: Callable[[], object] = lambda: None,
) -> list[StageResult]:
    """Puts every query to every stage, in the order of `names`; `on_query` is called after each search.

    Raises:
        AnswerNotUnderstood: the proxy did not serve a search.
    """
    results: list[StageResult] = []
    for name in names:
        run = run_stage(proxy, index, queries, stage=NAMES[name], body_of=body_of, on_query=on_query)
        evaluation = evaluate(qrels, run.rankings, list(REPORTED.values()))
        p_value = None
        if results:
            p_value = randomisation_test(evaluation.values["nDCG@10"], results[0].evaluation.values["nDCG@10"])
        results.append(StageResult(name, run, evaluation, p_value))
    return results
