"""`neural-bridge backfill`: enriches an index that an application wrote, in place or beside it in a companion."""

from typing import TYPE_CHECKING

import click

from bridge.commands import INDEX, say, show
from bridge.commands.options.enrich import EXTERNAL_VERSIONS, WAY, EnrichOptions, RunOptions, end
from bridge.commands.options.ray import RayOptions
from bridge.commands.options.signature import cli_command

if TYPE_CHECKING:
    from ingest.books.ledger import Report
    from ingest.job import Job
    from ingest.runs.run import Executor
    from ingest.runs.way import Wanted, Way


@cli_command("backfill")
def command(
    ctx: click.Context,
    *,
    index: str = INDEX,
    wanted: "Wanted | None" = WAY,
    enrich: EnrichOptions,
    run: RunOptions,
    external_versions: str | None = EXTERNAL_VERSIONS,
    ray: RayOptions,
) -> None:
    """Enrich the documents of INDEX in place or beside it, while its application goes on writing.

    In place, only our own object is set in each document. Beside, INDEX is only read: a hidden index, its
    companion, gets what is made of it. The command goes on as INDEX was begun; else it chooses beside if anything
    speaks against in place, and says what. A document that changes meanwhile is read again; one that is deleted stays
    deleted. If INDEX is an alias or a data stream, each of its indices is enriched. Rerun the command after an
    interruption. Exit codes as of `neural-bridge ingest`.
    """
    settings = enrich.settings(ctx, external_versions=external_versions, **run.limits())
    from bridge.cluster.connection import connect
    from ingest.job import Job

    executor = ray.executor(ctx, settings)
    client, printed, lines, reports = connect(settings.cluster), [], list[str](), []
    models, chosen = enrich.chosen(client, index, wanted, settings, ray.local_settings(settings.ingest))
    for way, profile in chosen:
        say(str(way), err=True)
        folder = run.folder("backfill", way.index)
        if run.state_folder is not None and len(chosen) > 1:
            folder /= way.index
        job = Job(way.index, profile, models, client, settings.ingest, folder)
        with run.started(f"backfill {way.index}", job) as (job, request):
            report, more, details = _run(way, job, executor)
        reports.append(report)
        printed.append({**report.to_json(), **more, "reasons": list(way.reasons)})
        lines += [str(report), *details]
        if request.number is not None:
            break
    show(printed[0] if len(chosen) == 1 else {"indices": printed}, *lines, as_json=enrich.as_json)
    end(ctx, request, *reports, n_runs=len(chosen))


def _run(way: "Way", job: "Job", executor: "Executor") -> "tuple[Report, dict[str, object], list[str]]":
    """The report of a run, what else it says as JSON, and the same for people."""
    from ingest.runs.backfill import run_backfill
    from ingest.runs.beside import run_beside

    if way.prefix is not None:
        done = run_beside(job, way.prefix, executor)
        gone = f", where {done.removed:,} that the application deleted are removed" if done.removed else ""
        more: dict[str, object] = {"companion": done.companion, "removed": done.removed}
        return done.report, more, [f"  beside, in {done.companion}{gone}"]
    in_place = run_backfill(job, executor)
    again, left = in_place.read_again, in_place.left
    lines = [f"  {again:,} were changed meanwhile and read again, {left:,} kept changing"] if again else []
    return in_place.report, {"read_again": again, "left": left}, lines
