"""`neural-bridge evaluate`: measure every stage on a collection, or on an index of your own."""

from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import click

from bridge.commands import JSON, progress_display, say, show
from bridge.commands.options.judgements import JudgementOptions, Subject, judged_index
from bridge.commands.options.signature import FILE, cli_command, option
from bridge.errors import UsageError
from bridge.profile import Stage

if TYPE_CHECKING:
    from rich.table import Table

    from bridge.console import Display
    from bridge.evaluation.stages import StageResult

STAGES = ("bm25", "expansion", "vector", "hybrid", "smoothing", "rerank", "cascade")

REQUIREMENT_FAILED = 1
"""Exit code."""


@cli_command("evaluate")
def command(
    ctx: click.Context,
    *,
    judgements: JudgementOptions,
    stages: str = option(
        "--stages", default=",".join(STAGES), help="Stages to measure, comma-separated; `sparse` and `image`, too."
    ),
    requirements: tuple[str, ...] = option(
        "--require", multiple=True, help="Exit with 1 unless this holds, for example ndcg@10>=bm25+0.01; repeatable."
    ),
    run_file: Path | None = option(
        "--run-file", type=FILE, help="Write a TREC run; with several stages, one file NAME-STAGE.SUFFIX for each."
    ),
    as_json: bool = JSON,
) -> None:
    """Measure every stage on a collection or on your index, through the proxy.

    A collection is enriched and written to the embedded node once; the next evaluation reuses it. With
    --label-free, a collection's own judgements are measured too, and the command reports how far both agree.
    Prints nDCG@10, MRR@10 and recall@100 with 95 % bootstrap intervals, p against the first stage, queries won
    and lost, the ten worst losses, and the latency of one search at a time.

    \b
    Exit codes: 0 measured
                1 a --require is not met
                2 usage
                4 no connection or no permission
    """
    wanted = named_stages(stages)
    from bridge.evaluation.requirement import Requirement

    required = [Requirement.parse(text) for text in requirements]
    display = progress_display()
    with judged_index(ctx, judgements, display) as subject:
        results = measure(subject, wanted, display)
        tables = _tables(subject, results)
        by_people = measure(replace(subject, judged=subject.people), wanted, display) if subject.people else None
    from bridge.evaluation import report
    from bridge.evaluation.agreement import agreement

    say(*report.remarks(subject.judged, results), err=True)
    if run_file is not None:
        for result in results:
            file = report.run_file(run_file, result.name, several=len(results) > 1)
            report.write_run(file, result.run.rankings, result.name)
    agreed = agreement(results, by_people) if by_people else None
    show(
        report.to_json(subject.name, subject.index.n_documents, subject.judged, results)
        | (report.agreement_to_json(agreed) if agreed else {}),
        *tables,
        *([report.agreement_in_words(agreed)] if agreed else []),
        as_json=as_json,
        indent=None,
    )
    figures = {result.name: result.figures() for result in results}
    if failed := [requirement.text for requirement in required if not requirement.is_met(figures)]:
        say(f"not met: {', '.join(failed)}", err=True)
        ctx.exit(REQUIREMENT_FAILED)


def measure(subject: Subject, stages: list[Stage], display: "Display") -> "list[StageResult]":
    """Runs the stages with a progress bar.

    Raises:
        UsageError: none of them could be reached.
        AnswerNotUnderstood: the proxy did not serve a search.
    """
    from bridge.evaluation.stages import measure_stages, shown_name

    with display.progress("Search", len(stages) * len(subject.judged.queries)) as progress:
        searches = count(1)
        results = measure_stages(
            subject.index.proxy,
            subject.index.name,
            queries=subject.judged.queries,
            qrels=subject.judged.qrels,
            stages=stages,
            body_of=subject.body_of,
            say=display.say,
            own_documents=subject.judged.own_documents,
            on_query=lambda: progress(next(searches)),
        )
    if not results:
        raise UsageError(
            f"none of the stages {', '.join(map(shown_name, stages))} could be reached: the lines above say why"
        )
    return results


def named_stages(stages: str) -> list[Stage]:
    """The stages of a comma-separated list, each once; `bm25` is another name of `lexical`.

    Raises:
        UsageError: one is unknown, or there is none.
    """
    names = [name.strip() for name in stages.split(",") if name.strip()]
    known = {stage: stage for stage in get_args(Stage)} | {"bm25": "lexical"}
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        raise UsageError(
            f"--stages {stages}: no stage {', '.join(unknown) or 'at all'}; choose from {', '.join(STAGES)}, sparse, "
            "image"
        )
    return list(dict.fromkeys(known[name] for name in names))


def _tables(subject: Subject, results: "list[StageResult]") -> "list[Table]":
    """The stages' figures, and the worst losses of the last stage with a few words of each document."""
    from bridge.evaluation import report
    from bridge.evaluation.losses import document_titles, worst_losses

    judged, index = subject.judged, subject.index
    title = f"{subject.name}: {index.n_documents:,} documents, {len(judged.queries):,} queries ({judged.source})"
    tables = [report.stages_table(title, results)]
    first, last = results[0], results[-1]
    if losses := worst_losses(first, last, report.COMPARED):
        shown = {doc_id for loss in losses for doc_id in (*loss.ranking_before, *loss.ranking_after)}
        titles = document_titles(index.cluster, index.name, sorted(shown), index.profile.text_fields)
        tables.append(report.losses_table(first.name, last.name, losses, judged, titles))
    return tables
