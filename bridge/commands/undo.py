"""`neural-bridge undo`: remove every trace of the bridge from an index."""

from typing import TYPE_CHECKING, Any

import click

from bridge.commands import CLUSTER, INDEX, JSON, YES, confirm, connected, show
from bridge.commands.options.signature import cli_command

if TYPE_CHECKING:
    from opensearchpy import OpenSearch


@cli_command("undo")
def command(
    ctx: click.Context, *, index: str = INDEX, yes: bool = YES, cluster_url: str | None = CLUSTER, as_json: bool = JSON
) -> None:
    """Delete the companion of INDEX, or remove the bridge's fields from its documents and its profile from the mapping.

    An index that is enriched beside was never written: nothing stays behind. One that is enriched in place keeps its
    documents as they are otherwise. No field can be removed from a mapping: the command lists those that stay, empty.
    If INDEX is an alias or a data stream, the companions of all its indices are deleted.
    """
    client, settings = connected(ctx, cluster_url)
    from bridge.cluster import companion
    from bridge.cluster import index as indices

    prefix = settings.companion.prefix
    names = sorted(indices.resolve(client, index)) or [index]
    in_place = [name for name in names if (state := indices.find(client, name)) is not None and state.profile]
    found = {} if in_place else {name: companion.find(client, name, prefix) for name in names}
    companions = {name: ours.name for name, ours in found.items() if ours is not None}
    if not companions:
        _undo_in_place(client, index, yes=yes, as_json=as_json)
        return
    if not yes:
        confirm(f"Delete {', '.join(f'index {ours}, the companion of {name}' for name, ours in companions.items())}?")
    removed: list[dict[str, Any]] = []
    lines = []
    for name, ours in companions.items():
        documents = companion.remove(client, name, prefix) or 0
        removed.append({"documents": documents, "companion": ours, "mapped_fields": []})
        lines.append(f"{name}: its companion {ours} is deleted, with {documents:,} documents")
    show(removed[0] if len(names) == 1 else {"indices": removed}, *lines, as_json=as_json)


def _undo_in_place(client: "OpenSearch", index: str, *, yes: bool, as_json: bool) -> None:
    from bridge.cluster.removal import undo

    if not yes:
        confirm(f"Remove predicted queries, vectors and stamps from index {index}?")
    done = undo(client, index)
    show(
        {"documents": done.documents, "mapped_fields": done.mapped_fields},
        f"{index}: the bridge's fields are removed from {done.documents:,} documents, and the profile is removed",
        f"  still in the mapping, empty, because no field can be removed: {', '.join(done.mapped_fields)}",
        as_json=as_json,
    )
