"""Copies an index into a new one, enriched, if it cannot be enriched in place.

The new index gets the old one's mapping and settings, and our object beside its fields; ingest pipelines come last.
Passes repeat until one finds nothing new, since the application may write to the old index meanwhile.
"""

from dataclasses import dataclass, replace
from functools import partial
from threading import Event

from opensearchpy import OpenSearch

from bridge.cluster import index as indices
from bridge.cluster.schema import PIPELINE_SETTINGS
from bridge.errors import IndexUnsuitable
from ingest.books.ledger import Report
from ingest.job import Job
from ingest.runs.ingest import run_ingest
from ingest.sources.index import IndexDocuments
from ingest.writing.writer import BulkLimits

_PASSES = 5


@dataclass(frozen=True, slots=True)
class CopyReport:
    """`last` is the report of the last pass, `written` counts documents of all passes. `settled`: the last pass found
    nothing new. Documents that were deleted from the old index meanwhile are still in the copy: compare the counts."""

    last: Report
    written: int
    passes: int
    settled: bool
    old_documents: int
    new_documents: int


def run_copy(old: str, job: Job) -> CopyReport:
    """Copies `old` into the job's index, which is made if it does not exist.

    A run that was cut off is simply run again: what the copy holds is recognised by its stamp.

    Raises:
        IndexUnsuitable: the old index does not keep its documents whole, or the new one is made for
            something else.
        BridgeError: what `run_ingest` says.
    """
    client, new = job.client, job.index
    if (existing := indices.find(client, new)) is None:
        indices.create_like(client, old, new, job.profile)
    elif PIPELINE_SETTINGS & existing.settings.keys():
        indices.set_pipelines(client, new, {})  # The documents went through them already.
    retry = BulkLimits.of(job.settings).retry
    texts = job.profile.text_fields
    source = IndexDocuments(client, old, [], text_fields=texts, retry=retry, stopped=job.stopped)
    if source.identity == f"index {indices.identity(indices.look(client, new))}":
        raise IndexUnsuitable(f"{old} and {new} are the same index: name another one for the copy")
    passes = written = 0
    while True:
        passes += 1
        report = run_ingest(source, replace(job, from_start=True))
        written += report.ledger.written
        settled = report.complete and not report.ledger.written
        client.indices.refresh(index=old)
        if settled or passes == _PASSES or job.stopped.is_set():
            break
    if settled and (pipelines := indices.look(client, old).settings).keys() & PIPELINE_SETTINGS:
        indices.set_pipelines(client, new, pipelines)
    return CopyReport(report, written, passes, settled, indices.count(client, old), indices.count(client, new))


def wait_for_copies(client: OpenSearch, index: str, stopped: Event) -> None:
    """Waits until no shard copy of the index is being made; copies that no node has room for do not count."""
    # A copy takes longer than one request may: that answer has the status 408, and the loop asks again.
    health = partial(client.cluster.health, index=index, request_timeout=60, ignore=408)
    while not stopped.is_set() and health(wait_for_no_initializing_shards="true", timeout="10s")["timed_out"]:
        pass
