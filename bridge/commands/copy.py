"""`neural-bridge copy`: an enriched copy of an index that cannot be enriched in place."""

from functools import partial

import click
import msgspec

from bridge.commands import say, show
from bridge.commands.options.enrich import EnrichOptions, RunOptions, check_names, end, enrich_options, run_options


@click.command(name="copy")
@click.argument("old")
@click.argument("new")
@click.option("--alias", help="Alias of OLD to move to NEW when the copy is complete.")
@enrich_options
@run_options
@click.pass_context
def command(ctx: click.Context, old: str, new: str, alias: str | None, enrich: EnrichOptions, run: RunOptions) -> None:
    """Copy index OLD into NEW, enriched, and let an alias name NEW afterwards.

    Documents arrive byte for byte. Changes that the application makes in OLD meanwhile are copied in further
    passes; documents that it deletes meanwhile stay in NEW. OLD stays as it is. Exit codes as of
    `neural-bridge ingest`.
    """
    settings = enrich.settings(ctx, **run.limits())
    from bridge.cluster import index as indices
    from bridge.cluster.connection import connect
    from bridge.cluster.schema import leaves
    from ingest.job import Job
    from ingest.runs.copy import run_copy, wait_for_copies
    from ingest.runs.query_filter import sample_of_index
    from ingest.stages.models import load_models

    client = connect(settings.cluster)
    existing = indices.find(client, new)
    kept = existing.profile if existing else None
    state = indices.look(client, old)
    names = enrich.names(old, kept)
    check_names(names, list(leaves(state.mapping)), owner=f"index {old}")
    if alias:
        indices.alias_properties(client, alias, state.name)  # Before any work: is it an alias of the old index?
    models = load_models(settings.ingest)
    profile = enrich.profile(models, names, kept, settings.ingest, partial(sample_of_index, client, old, names))
    job = Job(new, profile, models, client, settings.ingest, run.folder("copy", new))
    with run.started(f"copy {old}", job) as (job, request):
        done = run_copy(old, job)
    if alias and done.settled:
        if settings.ingest.load_replicas is not None:
            wait_for_copies(client, new, request.stopped)
        indices.move_alias(client, alias, old=state.name, new=new)
    lines = [
        f"{old} → {new}: {done.written:,} documents written in {done.passes} passes",
        f"  {old} holds {done.old_documents:,} documents, {new} {done.new_documents:,}",
    ]
    if done.last.dead_letters:
        lines.append(f"  why documents are dead letters: {done.last.dead_letters}")
    show(msgspec.to_builtins(done), *lines, as_json=enrich.as_json)
    if alias and not done.settled:
        say(f"alias {alias} was not moved: {old} kept changing; run it again", err=True)
    end(ctx, request, done.last)
