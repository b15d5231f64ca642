"""Prints an evaluation: tables for people, a JSON object for programs, TREC run files for trec_eval."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Column, Table

from bridge.console import number_columns, safe_cell
from bridge.evaluation.agreement import Agreement
from bridge.evaluation.judged_queries import FEWEST_QUERIES, JudgedQueries
from bridge.evaluation.losses import Loss, marked, won_and_lost
from bridge.evaluation.stages import REPORTED, StageResult

COMPARED = "nDCG@10"
"""The measure that decides whether a query is won or lost."""


def to_json(name: str, n_documents: int, judged: JudgedQueries, results: Sequence[StageResult]) -> dict[str, Any]:
    """The evaluation as one object; `stages` in the order of measurement."""
    return {
        "collection": name,
        "documents": n_documents,
        "queries": len(judged.queries),
        "stages": {result.name: result.figures() for result in results},
    }


def stages_table(title: str, results: Sequence[StageResult]) -> Table:
    """Means with 95 % bootstrap intervals; p, won and lost against the first stage."""
    estimated = (f"{name} [95 %]" for name in REPORTED)
    figures = number_columns(*estimated, "p (nDCG@10)", "won", "lost", "p50 ms", "p95 ms")
    table = Table("stage", *figures, title=safe_cell(title))
    for result in results:
        estimates = [result.evaluation.estimate(measure) for measure in REPORTED.values()]
        p50, p95 = result.latencies()
        compared = ["", "", ""]
        if result.p_value is not None:
            compared = [f"{result.p_value:.4f}", *map(str, won_and_lost(results[0], result, COMPARED))]
        table.add_row(
            result.name,
            *(f"{estimate.mean:.3f} [{estimate.low:.3f}, {estimate.high:.3f}]" for estimate in estimates),
            *compared,
            f"{p50:.0f}",
            f"{p95:.0f}",
        )
    return table


def losses_table(
    before: str, after: str, losses: Sequence[Loss], judged: JudgedQueries, titles: Mapping[str, str]
) -> Table:
    """The worst losses side by side; `titles` has the first words of documents, if known."""
    table = Table(
        Column("query", overflow="fold", max_width=40),
        *number_columns("nDCG@10"),
        *(Column(stage, overflow="fold") for stage in (before, after)),
        title=f"Where {after} answers worst, beside {before} (+ judged relevant)",
        show_lines=True,
    )
    for loss in losses:
        grades = judged.qrels[loss.query_id]
        table.add_row(
            safe_cell(judged.queries[loss.query_id]),
            f"{loss.before:.2f} → {loss.after:.2f}",
            safe_cell(marked(loss.ranking_before, grades, titles), lines=True),
            safe_cell(marked(loss.ranking_after, grades, titles), lines=True),
        )
    return table


def agreement_to_json(agreed: Agreement) -> dict[str, Any]:
    """The agreement of label-free questions with judgements, under the key `agreement`."""
    gains = {
        name: {"label_free": round(label_free, 4), "judged": round(judged, 4)}
        for name, (label_free, judged) in agreed.gains.items()
    }
    same = {"same_sign": agreed.same_sign, "kendall_tau": round(agreed.kendall_tau, 4)}
    return {"agreement": {"measure": COMPARED, "gains": gains, **same}}


def agreement_in_words(agreed: Agreement) -> str:
    """The agreement as a few lines of text."""
    gains = "; ".join(
        f"{name} {label_free:+.3f} and {judged:+.3f}" for name, (label_free, judged) in agreed.gains.items()
    )
    return (
        f"{COMPARED} gained, by label-free questions and by judgements: {gains}. The same sign for {agreed.same_sign} "
        f"of {len(agreed.gains)} stages; Kendall's tau of the order of all stages {agreed.kendall_tau:+.2f}"
    )


def remarks(judged: JudgedQueries, results: Sequence[StageResult]) -> list[str]:
    """Warnings that an operator should read before trusting the figures."""
    lines = list(judged.remarks)
    n_queries = len(judged.queries)
    if n_queries < FEWEST_QUERIES:
        lines.append(f"{n_queries} judged queries prove nothing: at least {FEWEST_QUERIES} tell a gain from chance")
    for result in results:
        run = result.run
        if run.degraded:
            lines.append(
                f"stage {result.name}: {run.degraded} of {n_queries} searches were answered by an earlier stage; its "
                f"figures are not its own"
            )
        lines += [
            f"stage {result.name}: {count} of {n_queries} searches were left as they are ({reason})"
            for reason, count in run.left_alone.items()
        ]
        lines += [
            f"stage {result.name}: the cluster refused {count} of {n_queries} searches, which count 0 (status {status})"
            for status, count in run.refused.items()
        ]
    return lines


def run_file(file: Path, stage: str, *, several: bool) -> Path:
    """The file of one stage's run: `file`, or `NAME-STAGE.SUFFIX` beside it if there are several stages."""
    return file.with_name(f"{file.stem}-{stage}{file.suffix}") if several else file


def write_run(file: Path, rankings: Mapping[str, Sequence[str]], tag: str) -> None:
    """Writes lines of `query_id Q0 doc_id rank score tag`; the score only repeats the order.

    White space in ids, which the format does not allow, becomes an underscore.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", encoding="utf-8") as lines:
        for query_id, doc_ids in rankings.items():
            for rank, doc_id in enumerate(doc_ids, start=1):
                score = len(doc_ids) - rank + 1
                lines.write(f"{_one_word(query_id)} Q0 {_one_word(doc_id)} {rank} {score} {tag}\n")


def _one_word(name: str) -> str:
    return "_".join(name.split())
