"""`neural-bridge copy`: an enriched copy of an index, where in place cannot work."""

import json
from functools import partial

import click
import msgspec

from bridge.commands.options.enrich import Making, Running, end, making_options, running_options


@click.command(name="copy")
@click.argument("old")
@click.argument("new")
@click.option("--alias", help="Alias of OLD that names NEW once the copy is whole.")
@making_options
@running_options
@click.pass_context
def command(ctx: click.Context, old: str, new: str, alias: str | None, making: Making, running: Running) -> None:
    """Copy index OLD into NEW, enriched, and let an alias name NEW afterwards.

    Documents arrive byte for byte. What the application changes in OLD meanwhile is copied in further
    passes; what it deletes meanwhile is not deleted from NEW. OLD stays as it is. Exit codes as of
    `neural-bridge ingest`.
    """
    settings = making.settings(ctx, **running.limits())
    from bridge.cluster import index as indices
    from bridge.cluster.bulk_load import wait_for_copies
    from bridge.cluster.connection import connect
    from ingest.display import shown
    from ingest.job import Job
    from ingest.runs.copy import run_copy
    from ingest.runs.query_filter import sample_of_index
    from ingest.signals import stop_on_signals
    from ingest.stages.models import load_models

    client = connect(settings.cluster)
    existing = indices.find(client, new)
    kept = existing.profile if existing else None
    names = making.names(old, kept)
    models = load_models(settings.ingest)
    with stop_on_signals() as request, shown(f"copy {old}", quiet=running.quiet) as on_progress:
        done = run_copy(
            old,
            Job(
                new,
                profile=making.profile(
                    models, names, kept, settings.ingest, partial(sample_of_index, client, old, names)
                ),
                models=models,
                client=client,
                settings=settings.ingest,
                state_folder=running.folder("copy", new),
                on_progress=on_progress,
                stopped=request.stopped,
            ),
        )
    if alias and done.settled:
        if settings.ingest.load_replicas is not None:
            wait_for_copies(client, new, request.stopped)
        indices.move_alias(client, alias, old=indices.look(client, old).name, new=new)
    if making.as_json:
        click.echo(json.dumps(msgspec.to_builtins(done), indent=2))
    else:
        click.echo(f"{old} → {new}: {done.written:,} documents written in {done.passes} passes")
        click.echo(f"  {old} holds {done.old_documents:,} documents, {new} {done.new_documents:,}")
        if done.last.dead_letters:
            click.echo(f"  why documents are dead letters: {done.last.dead_letters}")
    if alias and not done.settled:
        click.echo(f"alias {alias} was not moved: {old} kept changing; run it again", err=True)
    end(ctx, request, done.last)
