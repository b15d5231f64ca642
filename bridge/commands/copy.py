"""`neural-bridge copy`: an enriched copy of an index, where in place cannot work."""

import json
from pathlib import Path

import click
import msgspec

from bridge.commands import settings_of
from bridge.commands.index import cluster_option, json_option, passage_options, passage_settings


@click.command(name="copy")
@click.argument("old")
@click.argument("new")
@click.option("--text-field", "text_fields", multiple=True, required=True, help="Field to enrich; repeat it.")
@click.option("--alias", help="Alias of OLD that names NEW once the copy is whole.")
@passage_options
@cluster_option
@click.option("--no-expansion", is_flag=True, help="Write no predicted queries.")
@click.option(
    "--state-folder",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where dead letters are kept; one folder per index by default.",
)
@json_option
@click.option("--quiet", is_flag=True, help="Show no progress.")
@click.pass_context
def command(
    ctx: click.Context,
    old: str,
    new: str,
    text_fields: tuple[str, ...],
    alias: str | None,
    layout: str,
    max_tokens: int | None,
    overlap_tokens: int | None,
    cluster_url: str | None,
    no_expansion: bool,
    state_folder: Path | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Copy index OLD into NEW, enriched, and let an alias name NEW afterwards.

    Documents arrive byte for byte. What the application changes in OLD meanwhile is copied in further
    passes; what it deletes meanwhile is not deleted from NEW. OLD stays as it is. Exit codes as of
    `neural-bridge ingest`.
    """
    settings = settings_of(ctx, cluster={"url": cluster_url}, ingest={"generator": "" if no_expansion else None})
    from bridge.cluster import index as indices
    from bridge.cluster.connection import connect
    from ingest.copying import run_copy
    from ingest.display import shown
    from ingest.models import load_models, profile_for
    from ingest.signals import stop_on_signals
    from ingest.state import default_state_folder

    client = connect(settings.cluster)
    models = load_models(settings.ingest)
    profile = profile_for(models, text_fields, passages=passage_settings(layout, max_tokens, overlap_tokens))
    with stop_on_signals() as request, shown(f"copy {old}", quiet=quiet) as on_progress:
        done = run_copy(
            old,
            new,
            profile=profile,
            models=models,
            client=client,
            settings=settings.ingest,
            state_folder=state_folder or default_state_folder("copy", new),
            on_progress=on_progress,
            stopped=request.stopped,
        )
    if alias and done.settled:
        indices.move_alias(client, alias, old=indices.look(client, old).name, new=new)
    if as_json:
        click.echo(json.dumps(msgspec.to_builtins(done), indent=2))
    else:
        click.echo(f"{old} → {new}: {done.written:,} documents written in {done.passes} passes")
        click.echo(f"  {old} holds {done.old_documents:,} documents, {new} {done.new_documents:,}")
        if done.last.dead_letters:
            click.echo(f"  why documents are dead letters: {done.last.dead_letters}")
    if alias and not done.settled:
        click.echo(f"alias {alias} was not moved: {old} kept changing; run it again", err=True)
    ctx.exit(request.exit_code if request.number is not None and not done.last.complete else done.last.exit_code)
