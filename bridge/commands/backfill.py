"""`neural-bridge backfill`: enriches an index that an application wrote, in place or beside it in a companion."""

from functools import partial

import click

from bridge.commands import show
from bridge.commands.options.enrich import (
    EnrichOptions,
    RunOptions,
    chosen_way,
    end,
    enrich_options,
    run_options,
    versions_option,
    way_options,
)
from bridge.commands.options.ray import RayOptions, ray_options


@click.command(name="backfill")
@click.argument("index")
@way_options
@enrich_options
@run_options
@versions_option
@ray_options
@click.pass_context
def command(
    ctx: click.Context,
    index: str,
    wanted: str | None,
    enrich: EnrichOptions,
    run: RunOptions,
    external_versions: str | None,
    ray: RayOptions,
) -> None:
    """Enrich the documents of INDEX in place or beside it, while its application goes on writing.

    In place, only our own object is set in each document. Beside, INDEX is only read: a hidden index, its
    companion, gets what is made of it. A document that changes meanwhile is read again; one that is deleted stays
    deleted. Rerun the command after an interruption: it goes on the way that was begun. Exit codes as of
    `neural-bridge ingest`.
    """
    settings = enrich.settings(ctx, external_versions=external_versions, **run.limits())
    from bridge.cluster import index as indices
    from bridge.cluster.connection import connect
    from ingest.job import Job
    from ingest.runs.backfill import run_backfill
    from ingest.runs.beside import run_beside
    from ingest.runs.query_filter import sample_of_index
    from ingest.stages.models import load_models

    executor = ray.executor(ctx, settings)
    client, prefix = connect(settings.cluster), settings.companion.prefix
    state = indices.look(client, index)
    beside, kept = chosen_way(client, state, wanted, prefix)
    names = enrich.names_in(state, kept)
    models = load_models(ray.local_settings(settings.ingest))
    sample = partial(sample_of_index, client, index, names)
    profile = enrich.profile(models, names, kept, settings.ingest, sample)
    job = Job(index, profile, models, client, settings.ingest, run.folder("backfill", index))
    more: dict[str, object]
    with run.started(f"backfill {index}", job) as (job, request):
        if beside:
            done = run_beside(job, prefix, executor)
            report, more = done.report, {"companion": done.companion, "removed": done.removed}
            gone = f", where {done.removed:,} that the application deleted are removed" if done.removed else ""
            lines = [f"  beside, in {done.companion}{gone}"]
        else:
            in_place = run_backfill(job, executor)
            again, left = in_place.read_again, in_place.left
            report, more = in_place.report, {"read_again": again, "left": left}
            lines = [f"  {again:,} were changed meanwhile and read again, {left:,} kept changing"] if again else []
    show({**report.to_json(), **more}, str(report), *lines, as_json=enrich.as_json)
    end(ctx, request, report)
