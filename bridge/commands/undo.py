"""`neural-bridge undo`: every trace of the bridge out of an index."""

import json

import click

from bridge.commands import confirm, settings_of
from bridge.commands.index import cluster_option, json_option


@click.command(name="undo")
@click.argument("index")
@click.option("--yes", is_flag=True, help="Do not ask.")
@cluster_option
@json_option
@click.pass_context
def command(ctx: click.Context, index: str, yes: bool, cluster_url: str | None, as_json: bool) -> None:
    """Take our object out of every document of INDEX, and our profile out of its mapping.

    The documents themselves stay as they are. Fields cannot be removed from a mapping: which ones stay
    behind, empty, is said.
    """
    settings = settings_of(ctx, cluster={"url": cluster_url})
    from bridge.cluster.connection import connect
    from bridge.cluster.removal import undo

    client = connect(settings.cluster)
    if not yes:
        confirm(f"Remove predicted queries, vectors and stamps from index {index}?")
    done = undo(client, index)
    if as_json:
        click.echo(json.dumps({"documents": done.documents, "mapped_fields": done.mapped_fields}))
        return
    click.echo(f"{index}: our object is out of {done.documents:,} documents, none holds it; the profile is removed")
    click.echo(f"  still in the mapping, empty, since no field can be removed: {', '.join(done.mapped_fields)}")
