"""`neural-bridge backfill`: enriches an index that an application wrote, in place."""

from functools import partial

import click

from bridge.commands import show
from bridge.commands.options.enrich import EnrichOptions, RunOptions, end, enrich_options, run_options, versions_option
from bridge.commands.options.ray import RayOptions, ray_options


@click.command(name="backfill")
@click.argument("index")
@enrich_options
@run_options
@versions_option
@ray_options
@click.pass_context
def command(
    ctx: click.Context,
    index: str,
    enrich: EnrichOptions,
    run: RunOptions,
    external_versions: str | None,
    ray: RayOptions,
) -> None:
    """Enrich the documents of INDEX in place, while its application goes on writing.

    Only our own object is set. A document that changes meanwhile is read again; one that is deleted stays
    deleted. Rerun the command after an interruption. Exit codes as of `neural-bridge ingest`.
    """
    settings = enrich.settings(ctx, external_versions=external_versions, **run.limits())
    from bridge.cluster import index as indices
    from bridge.cluster.connection import connect
    from ingest.job import Job
    from ingest.runs.backfill import run_backfill
    from ingest.runs.query_filter import sample_of_index
    from ingest.stages.models import load_models

    executor = ray.executor(ctx, settings)
    client = connect(settings.cluster)
    state = indices.look(client, index)
    kept, names = state.profile, enrich.names_in(state)
    models = load_models(ray.local_settings(settings.ingest))
    sample = partial(sample_of_index, client, index, names)
    profile = enrich.profile(models, names, kept, settings.ingest, sample)
    job = Job(index, profile, models, client, settings.ingest, run.folder("backfill", index))
    with run.started(f"backfill {index}", job) as (job, request):
        done = run_backfill(job, executor)
    lines = [str(done.report)]
    if done.read_again:
        lines.append(f"  {done.read_again:,} were changed meanwhile and read again, {done.left:,} kept changing")
    more = {"read_again": done.read_again, "left": done.left}
    show({**done.report.to_json(), **more}, *lines, as_json=enrich.as_json)
    end(ctx, request, done.report)
