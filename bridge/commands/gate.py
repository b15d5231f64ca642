"""`neural-bridge gate`: enable only the stages that do no harm to an index."""

from itertools import count
from typing import TYPE_CHECKING

import click

from bridge.commands import JSON, enriched, progress_display, say, show
from bridge.commands.evaluate import STAGES, measure, named_stages
from bridge.commands.options.judgements import JudgementOptions, judged_index
from bridge.commands.options.signature import cli_command, option
from bridge.errors import UsageError
from bridge.profile import Stage

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from rich.table import Table

    from bridge.commands.options.judgements import Subject
    from bridge.console import Display
    from bridge.evaluation.gate import Forced
    from bridge.profile import Calibration, GateRecord, IndexProfile

JUDGED_STAGES = ("expansion", "hybrid", "smoothing", "rerank", "cascade")


@cli_command("gate")
def command(
    ctx: click.Context,
    *,
    judgements: JudgementOptions,
    stages: str = option(
        "--stages",
        default=",".join(JUDGED_STAGES),
        help="Stages to judge, each against the last one that passed; searches will stop at the last that passes.",
    ),
    tolerance: float | None = option(
        "--tolerance",
        type=click.FloatRange(0, 1),
        help="How far below zero the interval of the difference may reach. Defaults to 0.02 of nDCG@10.",
    ),
    force: tuple[Stage, ...] = option(
        "--force", type=click.Choice(STAGES[1:]), multiple=True, help="Enable a stage whatever the measurement says."
    ),
    reason: str | None = option("--reason", help="Why a stage is forced; stored in the index."),
    calibrate: bool = option(
        "--calibrate",
        help="Also measure what scores of vectors say about whether the index answers a question at all; answers then "
        "show their confidence.",
    ),
    dry_run: bool = option("--dry-run", help="Show the verdict, and write nothing."),
    as_json: bool = JSON,
) -> None:
    """Judge each stage by its effect on an index, and enable those that do no harm.

    A stage passes if the 95 % interval of its paired difference to the last stage that passed reaches no further
    below zero than the tolerance. With fewer than 20 queries, or an interval of no width, nothing is decided, and a
    stage serves if it served before. The verdict and its evidence are stored in the mapping (`_meta`) of the index, or
    of its companion if it is enriched beside; every proxy obeys within `proxy.profile_ttl_s`. With --force and
    --reason alone, nothing is measured.

    --calibrate needs no more than the questions: it compares how near documents are to them with how near they are to
    questions about everything else. Calibrate again after a new model or generation, which end a calibration.
    """
    forced = _forced(force, reason)
    if forced and judgements.index is not None and not (judgements.n_sources or judgements.label_free):
        if calibrate:
            raise UsageError("--calibrate needs questions: give --label-free, or judgements")
        record, profile = _force_only(ctx, judgements.index, judgements.cluster_url, forced, dry_run=dry_run)
    else:
        record, profile = _judge(ctx, judgements, stages, tolerance, forced, calibrate=calibrate, dry_run=dry_run)
    import msgspec

    for verdict in record.verdicts:
        if verdict.undecided is not None:
            say(f"stage {verdict.stage} is as it was, nothing is proven: {verdict.undecided}", err=True)
    calibration = profile.calibration if calibrate else None
    show(
        {
            **msgspec.to_builtins(record),
            **({"calibration": msgspec.to_builtins(calibration)} if calibrate else {}),
            "written": not dry_run,
        },
        _table(record),
        *([_in_words(calibration)] if calibration else []),
        f"searches {'would' if dry_run else 'will'} stop at: {profile.stages[-1]}",
        as_json=as_json,
        indent=None,
    )


def _judge(
    ctx: click.Context,
    judgements: JudgementOptions,
    stages: str,
    tolerance: float | None,
    forced: "list[Forced]",
    *,
    calibrate: bool,
    dry_run: bool,
) -> "tuple[GateRecord, IndexProfile]":
    """The verdicts, and the profile that obeys them, calibrated if that is wanted."""
    wanted: list[Stage] = ["lexical", *(stage for stage in named_stages(stages) if stage != "lexical")]
    display = progress_display()
    with judged_index(ctx, judgements, display) as subject:
        results = measure(subject, wanted, display)
        import msgspec

        from bridge.cluster.index import put_profile
        from bridge.evaluation import gate
        from bridge.evaluation.report import remarks

        say(*remarks(subject.judged, results), err=True)
        record = gate.judge(
            results,
            tolerance=gate.TOLERANCE if tolerance is None else tolerance,
            measurement=subject.judged.measurement(gate.MEASURE),
            forced=forced,
            serving=subject.index.profile.stages,
        )
        index = subject.index
        made = {"calibration": _calibration(subject, display)} if calibrate else {}

        def changed(profile: "IndexProfile") -> "IndexProfile":
            return msgspec.structs.replace(gate.gated(profile, record), **made)

        if not dry_run:
            return record, put_profile(index.cluster, index.profile_in, changed)
    return record, changed(index.profile)


def _calibration(subject: "Subject", display: "Display") -> "Calibration | None":
    """The index's calibration; None if there can be none, after saying why."""
    from bridge.evaluation.calibration import NotCalibrated, calibrated, far_questions, nearest_scores

    index, known, far = subject.index, list(subject.judged.queries.values()), far_questions()
    with display.progress("Ask how near documents are", len(known) + len(far)) as progress:
        asked = count(1)

        def scores(questions: "list[str]") -> "NDArray[np.float64]":
            return nearest_scores(
                index.proxy, index.name, questions, subject.body_of, on_question=lambda: progress(next(asked))
            )

        found = scores(known), scores(far)
    try:
        return calibrated(index.profile, *found, subject.judged.measurement("AUC"))
    except NotCalibrated as reason:
        say(f"answers show no confidence: {reason}", err=True)
        return None


def _in_words(calibration: "Calibration") -> str:
    return (
        f"calibrated: {calibration.measurement.queries:,} questions of the index are nearer to it than "
        f"{calibration.far_questions:,} others in {calibration.auc:.1%} of all pairs "
        f"[{calibration.low:.1%}, {calibration.high:.1%}]"
    )


def _force_only(
    ctx: click.Context, index: str, cluster_url: str | None, forced: "list[Forced]", *, dry_run: bool
) -> "tuple[GateRecord, IndexProfile]":
    client, state = enriched(ctx, index, cluster_url)
    from bridge.cluster.index import put_profile
    from bridge.evaluation import gate

    profile = state.required_profile
    record = gate.force(profile, forced)
    if not dry_run:
        return record, put_profile(client, state.name, lambda profile: gate.gated(profile, record))
    return record, gate.gated(profile, record)


def _forced(stages: tuple[Stage, ...], reason: str | None) -> "list[Forced]":
    if bool(stages) != bool(reason):
        raise UsageError("--force and --reason belong together: say which stage, and why")
    from bridge.evaluation.gate import Forced

    return [Forced(stage, reason or "") for stage in stages]


def _table(record: "GateRecord") -> "Table":
    from rich.table import Table

    from bridge.console import number_columns, safe_cell

    title = None
    if measurement := record.measurement:
        title = safe_cell(f"{measurement.measure} of {measurement.queries:,} queries ({measurement.judgements})")
    figures = number_columns("mean", "against", "difference [95 %]", "p50 ms", "p95 ms")
    table = Table("stage", *figures, "verdict", title=title)
    for verdict in record.verdicts:
        outcome = "passes" if verdict.enabled else "stays off"
        if verdict.undecided:
            outcome = f"undecided, {'serves' if verdict.enabled else 'stays off'} as before"
        difference = ""
        if verdict.difference is not None:
            difference = f"{verdict.difference:+.3f} [{verdict.low:+.3f}, {verdict.high:+.3f}]"
        table.add_row(
            verdict.stage,
            "" if verdict.mean is None else f"{verdict.mean:.3f}",
            verdict.against or "",
            difference,
            "" if verdict.p50_ms is None else f"{verdict.p50_ms:.0f}",
            "" if verdict.p95_ms is None else f"{verdict.p95_ms:.0f}",
            safe_cell(f"forced: {verdict.forced}") if verdict.forced else outcome,
        )
    return table
