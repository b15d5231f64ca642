"""Ingest: from a source of documents into an index that is made for them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from opensearchpy import OpenSearch

from bridge.cluster import index as indices
from ingest.books.books import Books
from ingest.books.ledger import Report
from ingest.job import Job
from ingest.runs.run import LOCAL, Executor
from ingest.sources.source import Source
from ingest.stages.stamps import recipe

NOTE_KEY = "neural_bridge_restore"
"""The key under the mapping's `_meta`; its value maps settings to what they were, null for the default."""


def run_ingest(
    source: Source[Any], job: Job, executor: Executor = LOCAL, *, remove_gone: Callable[[Job], int] | None = None
) -> Report:
    """Enriches the documents of a source and writes them to an index that exists; those that the index holds
    already, unchanged, are left alone. A run that was cut off goes on from its checkpoint. `remove_gone` then removes
    from the index what the source has no longer, and gives the number of documents.

    Raises:
        IndexUnsuitable: the index cannot hold what the profile makes; nothing was written.
        CheckpointUnusable: the state folder is in use, or its checkpoint is damaged or of another run.
        BridgeError: what `StartedRun.send` says; a checkpoint is kept.
    """
    client = job.client
    profile = indices.fitted(client, job.profile)
    state = indices.check(client, job.index, profile)
    indices.refuse_data_stream(state)
    profile = indices.as_kept(profile, state)
    job = replace(job, index=state.name, profile=profile)
    books = Books(
        job,
        source,
        index_identity=indices.identity(state),
        recipe=recipe(profile, job.settings),
        in_order=executor.in_order,
    )
    with books, executor.start(job, books, in_place=False) as run:
        indices.keep_profile(client, state, profile)
        # A run that was killed just now may have left documents that no search sees yet.
        client.indices.refresh(index=state.name)
        is_empty = indices.count(client, state.name) == 0
        with tuned_for_load(client, state.name, is_empty=is_empty, replicas=job.settings.load_replicas):
            run.send(source, is_empty=is_empty)
        if remove_gone is not None and not job.stopped.is_set():
            books.removed = remove_gone(job)
        books.complete()
        if not job.stopped.is_set():
            client.indices.refresh(index=state.name)
        return books.report()


@contextmanager
def tuned_for_load(client: OpenSearch, index: str, *, is_empty: bool, replicas: int | None = None) -> Iterator[None]:
    """Turns refreshing off if the index is empty, and restores its settings, also those that a killed run changed: the
    values stand in the index itself (`_meta`), so that the next run restores them from any machine.

    `replicas`: copies of each shard of an empty index meanwhile; None changes nothing. An index that follows the
    number of nodes (`auto_expand_replicas`) keeps its own. Without copies, a node that dies during a load takes
    acknowledged documents with it.
    """
    state = indices.look(client, index)
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
            restore_settings(client, state.name)


def restore_settings(client: OpenSearch, index: str) -> None:
    """Gives an index the settings back that `tuned_for_load` changed, if it has not got them back yet.

    Raises:
        AccessDenied: this user may not change the settings.
    """
    meta = dict(indices.look(client, index).mapping.get("_meta", {}))
    note = meta.pop(NOTE_KEY, None)
    if note is not None:
        client.indices.put_settings(index=index, body={f"index.{name}": value for name, value in note.items()})
        client.indices.put_mapping(index=index, body={"_meta": meta})
