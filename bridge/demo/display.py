"""The demo's two tables: the same searches without the bridge and through it, and what each stage is worth."""

from collections.abc import Sequence

from rich.table import Table

from bridge.demo.comparison import Comparison
from bridge.demo.measurement import StageMeasure
from bridge.evaluation.known_items import KnownItems

SHOWN_HITS = 3

STAGE_TITLES = {
    "bm25": "BM25 alone",
    "expansion": "+ predicted queries",
    "vector": "vectors alone",
    "hybrid": "both, fused",
    "cascade": "… small, then large reranker",
    "rerank": "… and reranked",
}


def comparisons_table(comparisons: Sequence[Comparison]) -> Table:
    """The first hits of plain BM25 and of the bridge, and which leg knew what."""
    table = Table(title="The same search, without the bridge and through it")
    for heading in (
        "what somebody types",
        "plain BM25",
        "through the bridge",
        "ranks by leg, cross-encoder's score",
    ):
        table.add_column(heading, overflow="fold")
    for comparison in comparisons:
        for row in range(SHOWN_HITS):
            hit = comparison.bridged[row] if row < len(comparison.bridged) else None
            table.add_row(
                comparison.question if row == 0 else "",
                comparison.plain[row] if row < len(comparison.plain) else "–",
                hit.doc_id if hit else "–",
                hit.contributions() if hit else "",
            )
        table.add_section()
    return table


def measures_table(results: Sequence[StageMeasure]) -> Table:
    """Effectiveness by stage, with 95 % intervals; p against BM25 alone."""
    table = Table(title="What each stage is worth")
    table.add_column("stage")
    for heading in ("MRR@10 [95 %]", "recall@10 [95 %]", "MRR@10, other words", "p (MRR)", "median ms"):
        table.add_column(heading, justify="right")
    for result in results:
        mrr, recall = result.mrr, result.recall
        table.add_row(
            STAGE_TITLES[result.name],
            f"{mrr.mean:.3f} [{mrr.low:.3f}, {mrr.high:.3f}]",
            f"{recall.mean:.3f} [{recall.low:.3f}, {recall.high:.3f}]",
            f"{result.mrr_other_words:.3f}",
            "" if result.p_value is None else f"{result.p_value:.4f}",
            f"{result.median_ms:.0f}",
        )
    return table


def questions_line(items: KnownItems) -> str:
    """What was asked, in one line."""
    other_words = sum(question.vocabulary == "other" for question in items.questions)
    return (
        f"{len(items.questions)} known-item questions; {other_words} in words that no right document uses; "
        f"{items.dropped} left out, since nothing here answers them"
    )
