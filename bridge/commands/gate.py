"""`neural-bridge gate`: lets only those stages serve an index that did no harm there."""

import json
from typing import TYPE_CHECKING, Any

import click

from bridge.commands import settings_of
from bridge.commands.evaluate import STAGES, measure, stage_names
from bridge.commands.options.judgements import Asked, measured, measured_options
from bridge.errors import UsageError

if TYPE_CHECKING:
    from rich.table import Table

    from bridge.evaluation.gate import Forced
    from bridge.profile import GateRecord

JUDGED_STAGES = ("expansion", "hybrid", "rerank", "cascade")
BEGINNING = "bm25"


@click.command(name="gate")
@measured_options
@click.option(
    "--stages",
    default=",".join(JUDGED_STAGES),
    show_default=True,
    help="Stages to judge, each against the last one that passed; searches will stop at the last that passes.",
)
@click.option(
    "--tolerance",
    type=click.FloatRange(0, 1),
    help="How far the interval of the difference may reach below zero; 0.02 of nDCG@10 by default.",
)
@click.option("--force", type=click.Choice(STAGES[1:]), multiple=True, help="Enable a stage whatever is measured.")
@click.option("--reason", help="Why a stage is forced; kept in the index.")
@click.option("--dry-run", is_flag=True, help="Show the verdict, and write nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def command(
    ctx: click.Context,
    /,
    stages: str,
    tolerance: float | None,
    force: tuple[str, ...],
    reason: str | None,
    dry_run: bool,
    as_json: bool,
    **asked: Any,
) -> None:
    """Judge the stages by what they do to an index, and enable those that do no harm.

    A stage passes where the 95 % interval of its paired difference to the last stage that passed reaches no
    further below zero than the tolerance. The verdict and its evidence are kept in the index's mapping
    (`_meta`); every proxy obeys within `proxy.profile_ttl_s`. With --force and --reason alone, nothing is
    measured.
    """
    forced = _forced(force, reason)
    options = Asked(**asked)
    if forced and options.index is not None and not options.has_judgements:
        record = _force_only(ctx, options.index, options.cluster_url, forced, dry_run=dry_run)
    else:
        record = _judge(ctx, options, stages, tolerance, forced, dry_run=dry_run)
    import msgspec

    if as_json:
        click.echo(json.dumps({**msgspec.to_builtins(record), "written": not dry_run}))
        return
    from bridge.console import wide_console

    wide_console().print(_table(record))
    serving = [verdict.stage for verdict in record.verdicts if verdict.enabled][-1]
    click.echo(f"searches {'would' if dry_run else 'will'} stop at: {serving}")


def _judge(
    ctx: click.Context,
    asked: Asked,
    stages: str,
    tolerance: float | None,
    forced: "list[Forced]",
    *,
    dry_run: bool,
) -> "GateRecord":
    names = [BEGINNING, *(name for name in stage_names(stages) if name != BEGINNING)]
    from bridge.console import Display, wide_console

    display = Display(wide_console(stderr=True))
    with measured(ctx, asked, display) as subject:
        results = measure(subject, names, display)
        from bridge.cluster.index import put_profile
        from bridge.evaluation import gate
        from bridge.evaluation.provenance import measured_now
        from bridge.evaluation.report import remarks

        for remark in remarks(subject.judged, results):
            click.echo(remark, err=True)
        record = gate.judge(
            results,
            tolerance=gate.TOLERANCE if tolerance is None else tolerance,
            measurement=measured_now(subject.judged, gate.MEASURE),
            forced=forced,
        )
        if not dry_run:
            index = subject.index
            put_profile(index.cluster, index.name, lambda profile: gate.gated(profile, record))
    return record


def _force_only(
    ctx: click.Context, index: str, cluster_url: str | None, forced: "list[Forced]", *, dry_run: bool
) -> "GateRecord":
    settings = settings_of(ctx, cluster={"url": cluster_url})
    from bridge.cluster.connection import connect
    from bridge.cluster.index import look, put_profile
    from bridge.errors import IndexUnsuitable
    from bridge.evaluation import gate

    with connect(settings.cluster) as client:
        profile = look(client, index).profile
        if profile is None:
            raise IndexUnsuitable(f"index {index} is not enriched: it has no stage to force")
        record = gate.force(profile, forced)
        if not dry_run:
            put_profile(client, index, lambda profile: gate.gated(profile, record))
    return record


def _forced(names: tuple[str, ...], reason: str | None) -> "list[Forced]":
    if bool(names) != bool(reason):
        raise UsageError("--force and --reason belong together: say which stage, and why")
    from bridge.evaluation.gate import Forced
    from bridge.evaluation.stage_results import NAMES

    return [Forced(NAMES[name], reason or "") for name in names]


def _table(record: "GateRecord") -> "Table":
    from rich.table import Table

    measurement = record.measurement
    title = (
        f"{measurement.measure} of {measurement.queries:,} queries ({measurement.judgements})" if measurement else ""
    )
    table = Table(title=title)
    table.add_column("stage")
    for heading in ("mean", "against", "difference [95 %]", "p50 ms", "p95 ms"):
        table.add_column(heading, justify="right")
    table.add_column("verdict")
    for verdict in record.verdicts:
        said = f"forced: {verdict.forced}" if verdict.forced else "passes" if verdict.enabled else "stays off"
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
            said,
        )
    return table
