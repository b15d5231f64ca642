"""What is each stage worth on the questions, and the index as `gate` and `tune` would serve it?"""

from collections.abc import Callable, Sequence
from dataclasses import replace

from opensearchpy import OpenSearch
from rich.box import SIMPLE_HEAD
from rich.table import Table

from bridge.demo.collection import application_query
from bridge.errors import SidecarError
from bridge.evaluation.judged_queries import JudgedQueries
from bridge.evaluation.measures import randomisation_test
from bridge.evaluation.stages import StageResult, measure_stages
from bridge.profile import Stage

MRR, RECALL = "RR@10", "R@10"
MEASURES = (MRR, RECALL, "nDCG@10")
"""The gate judges by the last one."""

SERVED = "served"
"""The name of the index as it is served, among the stages."""

SIGNIFICANCE = 0.05

STAGE_TITLES = {
    "bm25": "BM25 alone",
    "expansion": "+ predicted queries",
    "vector": "vectors alone",
    "sparse": "weighted terms alone",
    "hybrid": "both, fused",
    "smoothing": "… and smoothed",
    "rerank": "… and reranked",
    "cascade": "… small, then large reranker",
    SERVED: "as served: gated and tuned",
}


def measure(
    proxy: OpenSearch,
    index: str,
    judged: JudgedQueries,
    stages: Sequence[Stage],
    *,
    on_search: Callable[[], object],
    say: Callable[[str], object],
) -> list[StageResult]:
    """Asks every question at every stage that this stack can reach; `on_search` is called after each search, `say`
    with a line about each stage that is left out.

    Raises:
        AnswerNotUnderstood: the proxy did not serve a search.
        SidecarError: some answers came from an earlier stage, so the measure would not be of that stage.
    """
    results = measure_stages(
        proxy,
        index,
        queries=judged.queries,
        qrels=judged.qrels,
        stages=stages,
        body_of=application_query,
        measures=MEASURES,
        on_query=on_search,
        say=say,
    )
    for result in results:
        if degraded := result.run.degraded:
            raise SidecarError(
                f"stage {result.name}: {degraded} of {len(result.run.took_ms)} searches were answered by an earlier "
                f"stage: the logs of the sidecar (rerank.log) and of the proxy (proxy.log) say why"
            )
    return results


def measure_served(
    proxy: OpenSearch, index: str, judged: JudgedQueries, stage: Stage, *, say: Callable[[str], object]
) -> StageResult:
    """Asks every question of the index as it is served now, up to `stage`. Raises as `measure`."""
    [result] = measure(proxy, index, judged, [stage], on_search=lambda: None, say=say)
    return replace(result, name=SERVED)


def restricted(results: Sequence[StageResult], judged: JudgedQueries) -> list[StageResult]:
    """The same results on some of the questions."""
    query_ids = frozenset(judged.queries)
    return [replace(result, evaluation=result.evaluation.restricted_to(query_ids)) for result in results]


def measures_table(title: str, results: Sequence[StageResult]) -> Table:
    """MRR@10 with 95 % intervals and recall@10; p of MRR@10 against the first. Fits 80 columns."""
    table = Table(title=title, box=SIMPLE_HEAD, show_edge=False, padding=0)
    table.add_column("stage", no_wrap=True)
    for heading in ("MRR@10 [95 %]", "recall@10", "p (MRR)", "median ms"):
        table.add_column(heading, justify="right", no_wrap=True)
    for result in results:
        values, first = result.evaluation.values[MRR], results[0].evaluation.values[MRR]
        mrr = result.evaluation.estimate(MRR)
        table.add_row(
            STAGE_TITLES[result.name],
            f"{mrr.mean:.3f} [{mrr.low:.3f}, {mrr.high:.3f}]",
            f"{result.evaluation.mean(RECALL):.3f}",
            "" if result is results[0] else f"{randomisation_test(values, first):.4f}",
            f"{result.latencies()[0]:.0f}",
        )
    return table


def advice(results: Sequence[StageResult]) -> str | None:
    """What to do if an earlier line of the table has a higher mean MRR@10 than the last one; None if none has."""
    *earlier, last = results
    best = max(earlier, key=lambda result: result.evaluation.mean(MRR), default=last)
    if best.evaluation.mean(MRR) <= last.evaluation.mean(MRR):
        return None
    p_value = randomisation_test(best.evaluation.values[MRR], last.evaluation.values[MRR])
    names = f"“{STAGE_TITLES[best.name]}” has a higher MRR@10 than “{STAGE_TITLES[last.name]}”"
    tune = "judge more queries and run `neural-bridge tune --apply` with them"
    if p_value < SIGNIFICANCE:
        return f"{names} (p {p_value:.2g}). Use it with the header `x-bridge: {best.stage}`, or {tune}."
    return (
        f"{names}, but {len(last.evaluation.query_ids)} questions are too few to say which is better "
        f"(p {p_value:.2f}). Keep the settings; to be sure, {tune}."
    )
