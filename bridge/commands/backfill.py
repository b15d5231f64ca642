"""`neural-bridge backfill`: enriches an index that an application wrote, in place or beside it in a companion."""

from functools import partial
from typing import TYPE_CHECKING

import click

from bridge.commands import say, show
from bridge.commands.options.enrich import (
    EnrichOptions,
    RunOptions,
    end,
    enrich_options,
    run_options,
    versions_option,
    way_options,
)
from bridge.commands.options.ray import RayOptions, ray_options

if TYPE_CHECKING:
    from ingest.runs.way import Wanted


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
    wanted: "Wanted | None",
    enrich: EnrichOptions,
    run: RunOptions,
    external_versions: str | None,
    ray: RayOptions,
) -> None:
    """Enrich the documents of INDEX in place or beside it, while its application goes on writing.

    In place, only our own object is set in each document. Beside, INDEX is only read: a hidden index, its
    companion, gets what is made of it. The command goes on as INDEX was begun; else it chooses beside if anything
    speaks against in place, and says what. A document that changes meanwhile is read again; one that is deleted stays
    deleted. Rerun the command after an interruption. Exit codes as of
    `neural-bridge ingest`.
    """
    settings = enrich.settings(ctx, external_versions=external_versions, **run.limits())
    from bridge.cluster import index as indices
    from bridge.cluster.connection import connect
    from ingest.job import Job
    from ingest.runs.backfill import run_backfill
    from ingest.runs.beside import run_beside
    from ingest.runs.query_filter import sample_of_index
    from ingest.runs.way import begun, choose
    from ingest.stages.models import load_models

    executor = ray.executor(ctx, settings)
    client, prefix = connect(settings.cluster), settings.companion.prefix
    state = indices.look(client, index)
    kept = begun(client, state, prefix)
    names = enrich.names_in(state, kept)
    models = load_models(ray.local_settings(settings.ingest))
    sample = partial(sample_of_index, client, index, names)
    profile = enrich.profile(models, names, kept, settings.ingest, sample)
    way = choose(client, state, profile, settings.ingest, kept=kept, wanted=wanted, prefix=prefix)
    say(str(way), err=True)
    job = Job(index, profile, models, client, settings.ingest, run.folder("backfill", index))
    more: dict[str, object]
    with run.started(f"backfill {index}", job) as (job, request):
        if way.prefix is not None:
            done = run_beside(job, way.prefix, executor)
            report, more = done.report, {"companion": done.companion, "removed": done.removed}
            gone = f", where {done.removed:,} that the application deleted are removed" if done.removed else ""
            lines = [f"  beside, in {done.companion}{gone}"]
        else:
            in_place = run_backfill(job, executor)
            again, left = in_place.read_again, in_place.left
            report, more = in_place.report, {"read_again": again, "left": left}
            lines = [f"  {again:,} were changed meanwhile and read again, {left:,} kept changing"] if again else []
    show({**report.to_json(), **more, "reasons": list(way.reasons)}, str(report), *lines, as_json=enrich.as_json)
    end(ctx, request, report)
