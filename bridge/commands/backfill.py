"""`neural-bridge backfill`: enriches an index that an application wrote, in place."""

import json
from functools import partial

import click

from bridge.commands.options.enrich import Making, Running, end, making_options, running_options
from bridge.commands.options.ray import Distribution, distribution_options


@click.command(name="backfill")
@click.argument("index")
@making_options
@running_options
@distribution_options
@click.pass_context
def command(ctx: click.Context, index: str, making: Making, running: Running, distribution: Distribution) -> None:
    """Enrich the documents of INDEX where they are, while its application goes on writing.

    Only our own object is set. A document that changes meanwhile is read again; one that is deleted stays
    deleted. A run that was stopped is simply run again. Exit codes as of `neural-bridge ingest`.
    """
    settings = making.settings(ctx, **running.limits())
    from bridge.cluster import index as indices
    from bridge.cluster.connection import connect
    from ingest.display import shown
    from ingest.job import Job
    from ingest.runs.backfill import run_backfill
    from ingest.runs.query_filter import sample_of_index
    from ingest.signals import stop_on_signals
    from ingest.stages.models import load_models

    client = connect(settings.cluster)
    kept = indices.look(client, index).profile
    names = making.names(index, kept)
    models = load_models(distribution.here(settings.ingest))
    with stop_on_signals() as request, shown(f"backfill {index}", quiet=running.quiet) as on_progress:
        sample = partial(sample_of_index, client, index, names)
        profile = making.profile(models, names, kept, settings.ingest, sample)
        folder = running.folder("backfill", index)
        if distribution.runner == "ray":
            from ingest.ray.backfill import run_ray_backfill  # which cannot be imported without Ray

            done = run_ray_backfill(
                index,
                profile=profile,
                client=client,
                reach=distribution.reach(ctx, settings),
                settings=settings.ingest,
                state_folder=folder,
                pools=distribution.pools(settings),
                on_progress=on_progress,
                stopped=request.stopped,
            )
        else:
            done = run_backfill(
                Job(
                    index,
                    profile=profile,
                    models=models,
                    client=client,
                    settings=settings.ingest,
                    state_folder=folder,
                    on_progress=on_progress,
                    stopped=request.stopped,
                ),
            )
    if making.as_json:
        more = {"read_again": done.read_again, "left": done.left}
        click.echo(json.dumps({**done.report.to_json(), **more}, indent=2))
    else:
        click.echo(str(done.report))
        if done.read_again:
            click.echo(f"  {done.read_again:,} were changed meanwhile and read again, {done.left:,} kept changing")
    end(ctx, request, done.report)
