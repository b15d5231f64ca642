"""An empty index does not refresh while it is filled, and gets its own interval back, come what may.

The value to give back is kept in the index itself (`_meta`), so that the next run restores it from any
machine after this one was killed. Replicas are left alone: without them a node that dies during a load
takes documents with it that were acknowledged.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from opensearchpy import OpenSearch

from bridge.cluster.index import look

NOTE_KEY = "neural_bridge_restore"
"""The key under the mapping's `_meta`; its value maps `refresh_interval` to what it was, null for the default."""

_NEVER = "-1"


@contextmanager
def without_refresh(client: OpenSearch, index: str, *, is_empty: bool) -> Iterator[None]:
    """Turns refreshing off if the index is empty, and restores what was, also what a killed run left behind."""
    state = look(client, index)
    noted = NOTE_KEY in state.mapping.get("_meta", {})
    if is_empty and not noted and state.settings.get("refresh_interval") != _NEVER:
        note = {"refresh_interval": state.settings.get("refresh_interval")}
        meta = {**state.mapping.get("_meta", {}), NOTE_KEY: note}
        client.indices.put_mapping(index=state.name, body={"_meta": meta})
        client.indices.put_settings(index=state.name, body={"index.refresh_interval": _NEVER})
        noted = True
    try:
        yield
    finally:
        if noted:
            _restore(client, state.name)


def _restore(client: OpenSearch, index: str) -> None:
    meta = dict(look(client, index).mapping.get("_meta", {}))
    note = meta.pop(NOTE_KEY, None)
    if note is not None:
        client.indices.put_settings(index=index, body={"index.refresh_interval": note.get("refresh_interval")})
        client.indices.put_mapping(index=index, body={"_meta": meta})
