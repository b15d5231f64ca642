"""Documents leave an index: those that a sweep of a companion finds deleted, and those whose rows are gone.

Stamps name the source of rows, so only documents that it wrote are removed. The index is looked at before the keys of
the rows: what is written meanwhile is newer than that look, and stays.
"""

from collections.abc import Sequence
from itertools import islice

from bridge.errors import IngestError
from bridge.records import Document
from ingest.job import Job
from ingest.sources.index import IndexDocuments
from ingest.sources.rows import RowDocuments
from ingest.stages.stamps import origin_of, stamp_within
from ingest.writing.bulk import delete_action
from ingest.writing.writer import BulkLimits, BulkWriter


def remove_gone(job: Job, source: RowDocuments) -> int:
    """Deletes from the index of `job` what `source` wrote of rows that it has no longer; the number of documents.

    Raises:
        IngestError: the source has no row at all, as while a table is loaded anew; nothing is removed.
        UsageError, SourceUnreachable: the keys cannot be read; nothing is removed.
        BridgeError: what `IndexDocuments` and `BulkWriter` say.
    """
    limits = BulkLimits.of(job.settings)
    writer = BulkWriter(job.client, job.index, limits, stopped=job.stopped)
    job.client.indices.refresh(index=job.index)
    documents = documents_by_stamp(job)
    removed = 0
    with documents.point_in_time() as pit:
        # A hash takes an eighth of a key's memory; two keys of one hash leave a document that is gone.
        keys = set(map(hash, source.keys()))
        ours = (
            item
            for number in range(documents.n_shards)
            for item in documents.slice(pit, number, documents.n_shards)
            if isinstance(item, Document) and _origin(item, job.profile.stamp_field) == source.origin
        )
        gone = (item for item in ours if hash(item.doc_id) not in keys)
        while page := list(islice(gone, limits.bulk_documents)):
            if not keys:
                raise IngestError(
                    f"{source.identity} has no row, and index {job.index} has documents of it: nothing is removed; "
                    f"if the table is empty for good, delete these documents yourself"
                )
            removed += remove(page, writer)
    return removed


def _origin(document: Document, stamp_field: str) -> str | None:
    stamp = stamp_within(document.body, stamp_field)
    return origin_of(stamp) if stamp else None


def documents_by_stamp(job: Job) -> IndexDocuments:
    """The documents of the index of `job` with nothing but their stamps: enough to delete them.

    Raises:
        IndexUnsuitable: there is no such index.
    """
    retry = BulkLimits.of(job.settings).retry
    fields = [job.profile.stamp_field]
    return IndexDocuments(job.client, job.index, fields, text_fields=[], retry=retry, stopped=job.stopped)


def remove(documents: Sequence[Document], writer: BulkWriter) -> int:
    """Deletes documents, unless they were written since they were read; the number of those deleted.

    Raises:
        BridgeError: what `BulkWriter` says.
    """
    outcomes = writer.write([delete_action(document) for document in documents])
    return sum(outcome.kind == "written" for outcome in outcomes)
