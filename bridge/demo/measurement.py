"""Puts the known-item questions to each stage through the proxy, and measures the answers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from opensearchpy import OpenSearch

from bridge.demo.collection import application_query
from bridge.errors import SidecarError
from bridge.evaluation.known_items import KnownItems
from bridge.evaluation.measures import Estimate
from bridge.evaluation.stage_results import NAMES, StageResult, measure_stages

MEASURES = ("RR@10", "R@10")


@dataclass(frozen=True, slots=True)
class StageMeasure:
    """What a stage is worth. `p_value`: of its reciprocal ranks against those of BM25 alone, None for
    BM25 itself. `mrr_other_words`: over the questions that share no word with their answers."""

    name: str
    mrr: Estimate
    recall: Estimate
    mrr_other_words: float
    p_value: float | None
    median_ms: float


def measure(
    proxy: OpenSearch, index: str, items: KnownItems, *, on_search: Callable[[], object], say: Callable[[str], object]
) -> list[StageMeasure]:
    """Measures every stage that is there; `on_search` is called after each search, `say` told of stages that are
    not.

    Raises:
        AnswerNotUnderstood: the proxy did not serve a search.
        SidecarError: a stage was left out of some answers, so the measure would not be of that stage.
    """
    questions = {question.query_id: question.text for question in items.questions}
    other_words = frozenset(q.query_id for q in items.questions if q.vocabulary == "other")
    results = measure_stages(
        proxy,
        index,
        queries=questions,
        qrels=items.qrels,
        names=list(NAMES),
        body_of=application_query,
        measures=MEASURES,
        on_query=on_search,
        say=say,
    )
    return [_measured(result, other_words) for result in results]


def _measured(result: StageResult, other_words: frozenset[str]) -> StageMeasure:
    if degraded := result.run.degraded:
        raise SidecarError(
            f"stage {result.name}: {degraded} of {len(result.run.took_ms)} searches were answered by an earlier stage: "
            f"the logs of the sidecar (rerank.log) and of the proxy (proxy.log) say why"
        )
    return StageMeasure(
        name=result.name,
        mrr=result.evaluation.estimate("RR@10"),
        recall=result.evaluation.estimate("R@10"),
        mrr_other_words=result.evaluation.restricted_to(other_words).mean("RR@10"),
        p_value=result.p_value,
        median_ms=float(np.median(result.run.took_ms)),
    )


def total_searches(items: KnownItems) -> int:
    """How many searches `measure` sends where every stage is there."""
    return len(items.questions) * len(NAMES)


def mrr_by_name(results: Sequence[StageMeasure]) -> dict[str, float]:
    """MRR@10 under the names that `demo --check` prints."""
    return {f"mrr_{result.name}": round(result.mrr.mean, 4) for result in results}
