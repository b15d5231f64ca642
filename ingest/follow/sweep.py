"""Documents that an application deleted leave the companion of its index.

Nobody can ask an index which documents were deleted. But each deletion takes a sequence number, so a follower notices
that there may have been some; a sweep then looks through the companion, a page in each round.
"""

from itertools import islice

from bridge.records import Document
from ingest.follow.state import FollowState
from ingest.job import Job
from ingest.runs.removal import documents_by_stamp, remove
from ingest.sources.index import IndexDocuments
from ingest.writing.writer import BulkLimits, BulkWriter

PAGE_DOCUMENTS = 1000
"""Few enough that a round stays short."""


class Sweep:
    """Goes through the companion, the index of `job`, for what `source` has no longer."""

    def __init__(self, job: Job, source: IndexDocuments, state: FollowState) -> None:
        self._job = job
        self._source = source
        self._state = state
        self._companion = documents_by_stamp(job)
        self._writer = BulkWriter(job.client, job.index, BulkLimits.of(job.settings), stopped=job.stopped)
        self.removed = 0
        """Documents that left the companion."""

    @property
    def is_due(self) -> bool:
        """Whether documents may have been deleted that have not left the companion."""
        return self._state.deletions or bool(self._state.sweep)

    def go_on(self) -> None:
        """Looks through the next page.

        Raises:
            BridgeError: what `IndexDocuments` and `BulkWriter` say.
        """
        if not self.is_due:
            return
        if not self._state.sweep:
            # All that was written so far has to be seen: it may be of documents that were deleted meanwhile.
            self._job.client.indices.refresh(index=self._job.index)
            self._state.begin_sweep(self._companion.parts())
        shard, seen = next(iter(self._state.sweep.items()))
        entries = self._companion.changes(shard, after=seen)
        page = list(islice(entries, PAGE_DOCUMENTS))
        entries.close()
        documents = [each for each in page if isinstance(each, Document)]
        self.removed += remove(list(self._source.missing(documents)), self._writer)
        self._state.swept(shard, page[-1].position.offset if len(page) == PAGE_DOCUMENTS else None)
        self._state.save()
