"""Relax refresh and replicas of an empty index during a bulk load and restore them afterwards, even after a crash.

The values to restore stand in the index itself (`_meta`), so that the next run restores them from any machine.
Replicas change only on request: without them a node that dies during a load takes acknowledged documents with it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from threading import Event

from opensearchpy import OpenSearch

from bridge.cluster.index import look

NOTE_KEY = "neural_bridge_restore"
"""The key under the mapping's `_meta`; its value maps settings to what they were, null for the default."""


@contextmanager
def tuned_for_load(client: OpenSearch, index: str, *, is_empty: bool, replicas: int | None = None) -> Iterator[None]:
    """Turns refreshing off if the index is empty, and restores its settings, also those that a killed run changed.

    `replicas`: copies of each shard of an empty index meanwhile; None changes nothing. An index that follows the
    number of nodes (`auto_expand_replicas`) keeps its own.
    """
    state = look(client, index)
    noted = NOTE_KEY in state.mapping.get("_meta", {})
    wanted = {"refresh_interval": "-1"}
    if replicas is not None and state.settings.get("auto_expand_replicas", "false") == "false":
        wanted["number_of_replicas"] = str(replicas)
    note = {name: state.settings.get(name) for name, value in wanted.items() if state.settings.get(name) != value}
    if is_empty and not noted and note:
        # Before the settings: whoever is killed between the two has changed nothing.
        meta = {**state.mapping.get("_meta", {}), NOTE_KEY: note}
        client.indices.put_mapping(index=state.name, body={"_meta": meta})
        client.indices.put_settings(index=state.name, body={f"index.{name}": wanted[name] for name in note})
        noted = True
    try:
        yield
    finally:
        if noted:
            _restore(client, state.name)


def wait_for_copies(client: OpenSearch, index: str, stopped: Event) -> None:
    """Waits until no shard copy of the index is being made; copies that no node has room for do not count."""
    # A copy takes longer than one request may: that answer has the status 408, and the loop asks again.
    health = partial(client.cluster.health, index=index, request_timeout=60, ignore=408)
    while not stopped.is_set() and health(wait_for_no_initializing_shards="true", timeout="10s")["timed_out"]:
        pass


def _restore(client: OpenSearch, index: str) -> None:
    meta = dict(look(client, index).mapping.get("_meta", {}))
    note = meta.pop(NOTE_KEY, None)
    if note is not None:
        client.indices.put_settings(index=index, body={f"index.{name}": value for name, value in note.items()})
        client.indices.put_mapping(index=index, body={"_meta": meta})
