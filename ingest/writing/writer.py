"""Bulk writes that answer for every document.

opensearch-py's bulk helpers lose documents where an answer holds fewer items than were sent, retry
requests that may have been carried out, and take a document's own fields for instructions; so requests,
retries and accounts are made here. Ids are the documents' own, so sending one again is harmless.
"""

import threading
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import quote

from opensearchpy import OpenSearch

from bridge.cluster.connection import exchange
from bridge.errors import AnswerNotUnderstood, BridgeError, ClusterBlocked, ClusterUnreachable, IngestError
from bridge.settings import IngestSettings
from ingest.books.ledger import Failure, Outcome
from ingest.writing.actions import BulkAction
from ingest.writing.answers import Again, Stop, TooMuch, Verdict, verdicts
from ingest.writing.backpressure import Throttle
from ingest.writing.retry import Patience, RetryLimits

_UNIFORM_FAILURE = 10
"""A chunk of so many documents that all fail for one reason is a wrong mapping, not so many wrong documents."""

_ONLY_TIME_ENDS = ("blocked", "away")


@dataclass(frozen=True, slots=True)
class BulkLimits:
    """Bounds of requests; see `IngestSettings` for the first two. `concurrency`: requests in flight."""

    bulk_bytes: int = 5_000_000
    bulk_documents: int = 500
    concurrency: int = 4
    retry: RetryLimits = field(default_factory=RetryLimits)

    @classmethod
    def of(cls, settings: IngestSettings) -> Self:
        """The limits that the settings name."""
        return cls(
            bulk_bytes=settings.bulk_bytes,
            bulk_documents=settings.bulk_documents,
            retry=RetryLimits(max_attempts=settings.max_attempts, max_stall_s=settings.max_stall_s),
        )


class BulkWriter:
    """Writes actions to one index. Safe to use from several threads."""

    def __init__(self, client: OpenSearch, index: str, limits: BulkLimits, *, stopped: threading.Event) -> None:
        """`stopped`, once set, ends waits early."""
        self._client = client
        self._index = index
        self._limits = limits
        self._stopped = stopped
        self.throttle = Throttle(max_requests=limits.concurrency, max_documents=limits.bulk_documents)
        self.sent_again = 0
        self.concurrency = limits.concurrency

    def write(self, actions: Sequence[BulkAction]) -> list[Outcome]:
        """Writes all actions and says how each ended, in their order.

        Raises:
            ClusterBlocked, ClusterUnreachable, AccessDenied, IndexUnsuitable, AnswerNotUnderstood: the cluster
                takes no documents now.
            IngestError: many documents were refused, all for one reason.
            RunStopped: the operator stopped the run.
        """
        outcomes: dict[int, Outcome] = {}
        for chunk in self._chunks(actions):
            self._write_chunk(actions, chunk, outcomes)
        ended = [outcomes[position] for position in range(len(actions))]
        _refuse_uniform_failure(ended)
        return ended

    def _chunks(self, actions: Sequence[BulkAction]) -> Iterator[list[int]]:
        """Positions of actions that go into one request each, as the throttle allows at that moment."""
        waiting = deque(range(len(actions)))
        while waiting:
            chunk = [waiting.popleft()]
            size = len(actions[chunk[0]].lines)
            while waiting and len(chunk) < self.throttle.documents:
                size += len(actions[waiting[0]].lines)
                if size > self._limits.bulk_bytes:
                    break
                chunk.append(waiting.popleft())
            yield chunk

    def _write_chunk(self, actions: Sequence[BulkAction], chunk: list[int], outcomes: dict[int, Outcome]) -> None:
        patience = Patience(self._limits.retry, self._stopped)
        pending = chunk
        while pending:
            answer = self._send([actions[position] for position in pending])
            if isinstance(answer, TooMuch):
                self._write_parts(actions, pending, answer.failure, outcomes)
                return
            answers = answer if isinstance(answer, list) else [answer] * len(pending)
            again: Again | None = None
            unsettled = []
            for position, verdict in zip(pending, answers, strict=True):
                if isinstance(verdict, Stop):
                    raise verdict.error
                if isinstance(verdict, Again):
                    again = verdict
                    unsettled.append(position)
                else:
                    outcomes[position] = verdict
            pending = unsettled
            if again is not None:
                self.sent_again += len(pending)
                self.throttle.slow_down()
                # A block ends when an operator acts and a restart when it is over, however often they were met.
                if not patience.wait(retry_after_s=again.retry_after_s, count=again.cause not in _ONLY_TIME_ENDS):
                    raise _given_up(again, patience)
            else:
                self.throttle.speed_up()

    def _write_parts(
        self, actions: Sequence[BulkAction], chunk: list[int], failure: Failure, outcomes: dict[int, Outcome]
    ) -> None:
        if len(chunk) == 1:
            outcomes[chunk[0]] = Outcome("dead_lettered", failure)
            return
        middle = len(chunk) // 2
        for part in (chunk[:middle], chunk[middle:]):
            self._write_chunk(actions, part, outcomes)

    def _send(self, actions: Sequence[BulkAction]) -> list[Verdict] | TooMuch | Again | Stop:
        body = b"".join(action.lines for action in actions)
        try:
            with self.throttle.turn():
                answer = exchange(
                    self._client,
                    "POST",
                    f"/{quote(self._index, safe='')}/_bulk",
                    body=body,
                    content_type="application/x-ndjson",
                )
        except ClusterUnreachable as error:
            return Again(Failure("cluster_unreachable", str(error)), "away")
        return verdicts(answer, actions)


def _given_up(again: Again, patience: Patience) -> BridgeError:
    failure = again.failure
    tried = f"after {patience.attempts} attempts in {patience.waited_s:.0f} s"
    if again.cause == "blocked":
        return ClusterBlocked(
            f"the cluster refuses writes ({failure.reason}): free disk space or raise the flood stage, then clear "
            f"index.blocks.read_only_allow_delete (or index.blocks.write) of the index and run it again"
        )
    if again.cause == "unknown":
        return AnswerNotUnderstood(f"{failure.reason}; {tried} nothing is known of these documents: run it again")
    if failure.kind == "cluster_unreachable":
        return ClusterUnreachable(f"{failure.reason} ({tried})")
    return ClusterBlocked(
        f"the cluster is overloaded ({failure.status} {failure.kind}: {failure.reason}), also {tried}: lower "
        f"ingest.bulk_bytes, or run it again when there is less load"
    )


def _refuse_uniform_failure(outcomes: Sequence[Outcome]) -> None:
    failures = [outcome.failure for outcome in outcomes if outcome.kind == "dead_lettered" and outcome.failure]
    if len(failures) < max(_UNIFORM_FAILURE, len(outcomes)) or len({failure.kind for failure in failures}) > 1:
        return
    # The reason may quote a value of the document after "Preview".
    reason = failures[0].reason.split(". Preview")[0]
    raise IngestError(
        f"all {len(failures)} documents of a request were refused for one reason ({failures[0].kind}: {reason}): "
        f"correct the mapping or the source; these documents are neither written nor dead letters"
    )
