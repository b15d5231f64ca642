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
    """Delete the companion of INDEX, or remove the bridge's fields from its documents and its profile from the mapping.

    An index that is enriched beside was never written: nothing stays behind. One that is enriched in place keeps its
    documents as they are otherwise. No field can be removed from a mapping: the command lists those that stay, empty.
    """
    settings = settings_of(ctx, cluster={"url": cluster_url})
    from bridge.cluster import companion
    from bridge.cluster import index as indices
    from bridge.cluster.connection import connect
    from bridge.cluster.removal import undo

    client = connect(settings.cluster)
    state = indices.find(client, index)
    if state is None or state.profile is None:
        name, prefix = (state.name if state else index), settings.companion.prefix
        if (ours := companion.find(client, name, prefix)) is not None:
            if not yes:
                confirm(f"Delete index {ours.name}, the companion of {name}?")
            documents = companion.remove(client, name, prefix)
            line = f"{name}: its companion {ours.name} is deleted, with {documents or 0:,} documents"
            show({"documents": documents or 0, "companion": ours.name, "mapped_fields": []}, line, as_json=as_json)
            return
    if not yes:
        confirm(f"Remove predicted queries, vectors and stamps from index {index}?")
    done = undo(client, index)
    show(
        {"documents": done.documents, "mapped_fields": done.mapped_fields},
        f"{index}: the bridge's fields are removed from {done.documents:,} documents, and the profile is removed",
        f"  still in the mapping, empty, because no field can be removed: {', '.join(done.mapped_fields)}",
        as_json=as_json,
    )
