"""Bulk writes that answer for every document.

opensearch-py's bulk helpers lose documents if an answer holds fewer items than were sent, retry requests that may
have been carried out, and take a document's own fields for instructions; so requests and retries are made here. Ids
are the documents' own, so sending one again is harmless.
"""

import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import quote

from opensearchpy import OpenSearch

from bridge.cluster.connection import exchange
from bridge.errors import AnswerNotUnderstood, BridgeError, ClusterBlocked, ClusterUnreachable
from bridge.settings import IngestSettings
from ingest.books.ledger import Failure, Outcome
from ingest.writing.bulk import INDEX_MUST_EXIST, Again, BulkAction, Stop, TooMuch, Verdict, verdicts
from ingest.writing.pace import Backoff, RetryLimits

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
        self._path = f"/{quote(index, safe='')}/_bulk"
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
            RunStopped: the operator stopped the run.
        """
        outcomes: dict[int, Outcome] = {}
        for chunk in self._chunks(actions):
            self._write_chunk(actions, chunk, outcomes)
        return [outcomes[position] for position in range(len(actions))]

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
        backoff = Backoff(self._limits.retry, self._stopped)
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
                # A block ends when an operator acts and a restart when it is over, whatever the number of attempts.
                if not backoff.wait(retry_after_s=again.retry_after_s, count=again.cause not in _ONLY_TIME_ENDS):
                    raise _error_after(again, backoff)
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
        body = b"".join(action.lines for action in (INDEX_MUST_EXIST, *actions))
        try:
            with self.throttle.turn():
                answer = exchange(self._client, "POST", self._path, body=body, content_type="application/x-ndjson")
        except ClusterUnreachable as error:
            return Again(Failure("cluster_unreachable", str(error)), "away")
        return verdicts(answer, actions)


class Throttle:
    """Bounds requests in flight and documents per request: halves them when the cluster is overloaded, and raises them
    slowly afterwards (additive increase, multiplicative decrease: Chiu & Jain 1989). Safe to use from several
    threads."""

    def __init__(self, *, max_requests: int, max_documents: int) -> None:
        """Starts at both bounds, which are never exceeded."""
        self._most = (max_requests, max_documents)
        self.requests, self.documents = max_requests, max_documents
        self._in_flight = 0
        self._free = threading.Condition()

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Waits until one more request may be in flight."""
        with self._free:
            self._free.wait_for(lambda: self._in_flight < self.requests)
            self._in_flight += 1
        try:
            yield
        finally:
            with self._free:
                self._in_flight -= 1
                self._free.notify()

    def slow_down(self) -> None:
        """The cluster is overloaded: halves both bounds."""
        with self._free:
            self.requests = max(1, self.requests // 2)
            self.documents = max(1, self.documents // 2)

    def speed_up(self) -> None:
        """A request went through whole: raises the bounds a little."""
        with self._free:
            most_requests, most_documents = self._most
            self.documents = min(most_documents, self.documents + max(1, most_documents // 10))
            if self.documents == most_documents:
                self.requests = min(most_requests, self.requests + 1)
            self._free.notify_all()


def _error_after(again: Again, backoff: Backoff) -> BridgeError:
    failure = again.failure
    tried = f"after {backoff.attempts} attempts in {backoff.waited_s:.0f} s"
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
