"""`neural-bridge undo`: remove every trace of the bridge from an index."""

import click

from bridge.commands import cluster_option, confirm, json_option, settings_of, show, yes_option


@click.command(name="undo")
@click.argument("index")
@yes_option
@cluster_option
@json_option
@click.pass_context
def command(ctx: click.Context, index: str, yes: bool, cluster_url: str | None, as_json: bool) -> None:
    """Remove the bridge's fields from every document of INDEX, and its profile from the mapping.

    The documents stay as they are otherwise. No field can be removed from a mapping: the command lists those that
    stay behind, empty.
    """
    settings = settings_of(ctx, cluster={"url": cluster_url})
    from bridge.cluster.connection import connect
    from bridge.cluster.removal import undo

    client = connect(settings.cluster)
    if not yes:
        confirm(f"Remove predicted queries, vectors and stamps from index {index}?")
    done = undo(client, index)
    show(
        {"documents": done.documents, "mapped_fields": done.mapped_fields},
        f"{index}: the bridge's fields are removed from {done.documents:,} documents, and the profile is removed",
        f"  still in the mapping, empty, because no field can be removed: {', '.join(done.mapped_fields)}",
        as_json=as_json,
    )
