"""`neural-bridge backfill`: enriches an index that an application wrote, in place or beside it in a companion."""

from functools import partial

import click

from bridge.commands import say, show
from bridge.commands.options.enrich import EnrichOptions, RunOptions, end, enrich_options, run_options, versions_option
from bridge.commands.options.ray import RayOptions, ray_options


@click.command(name="backfill")
@click.argument("index")
@click.option("--beside", "wanted", flag_value="beside", help="Write to a companion; INDEX is only read.")
@click.option("--in-place", "wanted", flag_value="in_place", help="Set our object in the documents of INDEX.")
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
    """Enrich the documents of INDEX, while its application goes on writing.

    Goes on the way that was begun; else in place if nothing speaks against it, or beside. Beside, INDEX is only read,
    and a hidden index of ours, its companion, holds what was made of it. In place, only our own object is set. A
    document that changes meanwhile is read again; one that is deleted stays deleted. Rerun the command after an
    interruption. Exit codes as of `neural-bridge ingest`.
    """
    settings = enrich.settings(ctx, external_versions=external_versions, **run.limits())
    from bridge.cluster import companion
    from bridge.cluster import index as indices
    from bridge.cluster.connection import connect
    from ingest.job import Job
    from ingest.runs.backfill import run_backfill
    from ingest.runs.beside import run_beside
    from ingest.runs.query_filter import sample_of_index
    from ingest.runs.ways import choose
    from ingest.stages.models import load_models

    executor = ray.executor(ctx, settings)
    client, prefix = connect(settings.cluster), settings.companion.prefix
    state = indices.look(client, index)
    ours = companion.find(client, state.name, prefix)
    kept = state.profile if wanted == "in_place" or ours is None else state.profile or ours.profile
    names = enrich.names_in(state, kept)
    models = load_models(ray.local_settings(settings.ingest))
    sample = partial(sample_of_index, client, index, names)
    profile = enrich.profile(models, names, kept, settings.ingest, sample)
    way, why = wanted, ["an option says so"]
    if way is None:
        way, why = choose(client, state, ours, indices.fitted(client, profile), settings.ingest)
    target = f"beside, in {companion.companion_of(state.name, prefix)}" if way == "beside" else "in place"
    say(f"{state.name} is enriched {target}, since {'; '.join(why)}", err=True)
    job = Job(index, profile, models, client, settings.ingest, run.folder("backfill", index))
    more: dict[str, object] = {"way": way, "why": why}
    with run.started(f"backfill {index}", job) as (job, request):
        if way == "beside":
            beside = run_beside(job, prefix, executor)
            report, more = beside.report, {**more, "read_again": beside.read_again, "removed": beside.removed}
            lines = [f"  {beside.removed:,} were deleted by the application, and removed"] if beside.removed else []
        else:
            done = run_backfill(job, executor)
            report, more = done.report, {**more, "read_again": done.read_again, "left": done.left}
            changed = f"  {done.read_again:,} were changed meanwhile and read again, {done.left:,} kept changing"
            lines = [changed] if done.read_again else []
    show({**report.to_json(), **more}, str(report), *lines, as_json=enrich.as_json)
    end(ctx, request, report)
