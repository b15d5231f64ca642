"""Puts the known-item questions to each stage through the proxy, and measures the answers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np
from opensearchpy import OpenSearch

from bridge.demo.collection import application_query
from bridge.errors import SidecarError
from bridge.evaluation.known_items import KnownItems
from bridge.evaluation.measures import Estimate, Evaluation, evaluate, randomisation_test
from bridge.evaluation.stage_runs import run_stage
from bridge.profile import Stage

STAGES: tuple[Stage, ...] = get_args(Stage)
"""In the order in which they build on each other; the first is BM25 alone."""


@dataclass(frozen=True, slots=True)
class StageResult:
    """What a stage is worth. `p_value`: of its reciprocal ranks against those of BM25 alone, None for
    BM25 itself. `mrr_other_words`: over the questions that share no word with their answers."""

    stage: Stage
    mrr: Estimate
    recall: Estimate
    mrr_other_words: float
    p_value: float | None
    median_ms: float


def measure(proxy: OpenSearch, index: str, items: KnownItems, *, on_search: Callable[[int], None]) -> list[StageResult]:
    """Measures every stage; `on_search` is told how many searches are done.

    Raises:
        AnswerNotUnderstood: the proxy did not serve a search.
        SidecarError: a stage was left out of some answers, so the measure would not be of that stage.
    """
    queries = {question.query_id: question.text for question in items.questions}
    other_words = frozenset(q.query_id for q in items.questions if q.vocabulary == "other")
    done = 0

    def count() -> None:
        nonlocal done
        done += 1
        on_search(done)

    results: list[StageResult] = []
    baseline: Evaluation | None = None
    for stage in STAGES:
        run = run_stage(proxy, index, queries, stage=stage, body_of=application_query, on_query=count)
        if run.degraded:
            raise SidecarError(
                f"stage {stage}: {run.degraded} of {len(queries)} searches were answered by an earlier stage: "
                f"the logs of the sidecar (rerank.log) and of the proxy (proxy.log) say why"
            )
        evaluation = evaluate(items.qrels, run.rankings, ["RR@10", "R@10"])
        baseline = baseline or evaluation
        results.append(
            StageResult(
                stage=stage,
                mrr=evaluation.estimate("RR@10"),
                recall=evaluation.estimate("R@10"),
                mrr_other_words=evaluation.restricted_to(other_words).mean("RR@10"),
                p_value=None
                if evaluation is baseline
                else randomisation_test(evaluation.values["RR@10"], baseline.values["RR@10"]),
                median_ms=float(np.median(run.took_ms)),
            )
        )
    return results


def total_searches(items: KnownItems) -> int:
    """How many searches `measure` sends."""
    return len(items.questions) * len(STAGES)


def mrr_by_name(results: Sequence[StageResult]) -> dict[str, float]:
    """MRR@10 under the names that `demo --check` prints."""
    return {f"mrr_{'bm25' if r.stage == 'lexical' else r.stage}": round(r.mrr.mean, 4) for r in results}
