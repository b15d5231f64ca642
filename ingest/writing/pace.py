"""How fast a run may go, and how often and how long a request is tried again.

At most so many documents a second, and not while the cluster is in trouble; waits between attempts grow.
"""

import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Self, TypeVar
from urllib.parse import quote

import msgspec
import structlog
from opensearchpy import OpenSearch

from bridge.cluster.connection import exchange
from bridge.cluster.shard_progress import IndexProgress, index_progress
from bridge.errors import AnswerNotUnderstood, ClusterBlocked, ClusterUnreachable, IngestError
from bridge.records import Document
from bridge.settings import IngestSettings
from ingest.stages.batches import Batch

log = structlog.get_logger(__name__)

CHECK_EVERY_S = 5.0
"""How often a run checks the cluster's state."""

A = TypeVar("A")
B = TypeVar("B")


class RunStopped(IngestError):
    """The operator stopped the run."""


@dataclass(frozen=True, slots=True)
class RetryLimits:
    """When to give up; see `IngestSettings` for the first two."""

    max_attempts: int = 8
    max_stall_s: float = 300.0
    backoff_base_s: float = 1.0
    backoff_cap_s: float = 30.0


class Backoff:
    """The waits between the attempts at one request. They grow and have full jitter (Brooker 2015, "Exponential
    backoff and jitter"), so that clients that failed together come back apart."""

    def __init__(self, limits: RetryLimits, stopped: threading.Event) -> None:
        """`stopped`, once set, ends waits early."""
        self._limits = limits
        self._stopped = stopped
        self._began = time.monotonic()
        self.attempts = 0

    @property
    def waited_s(self) -> float:
        """Seconds since the first attempt."""
        return time.monotonic() - self._began

    def wait(self, *, retry_after_s: float = 0.0, count: bool = True) -> bool:
        """Waits before the next attempt; False if the limits allow none. With `count` off only the time limit holds.

        Raises:
            RunStopped: the operator stopped the run meanwhile.
        """
        self.attempts += 1
        left_s = self._limits.max_stall_s - self.waited_s
        if left_s <= 0 or (count and self.attempts >= self._limits.max_attempts):
            return False
        longest = min(self._limits.backoff_cap_s, self._limits.backoff_base_s * 2 ** (self.attempts - 1))
        pause = max(random.uniform(0, longest), retry_after_s)
        if self._stopped.wait(min(pause, left_s)):
            raise RunStopped("stopped while the cluster did not do what was asked")
        return True


def retrying(ask: Callable[[A], B], limits: RetryLimits, stopped: threading.Event) -> Callable[[A], B]:
    """`ask`, called again while the cluster does not answer or gives another answer; `ask` must change nothing."""

    def ask_again(question: A) -> B:
        backoff = Backoff(limits, stopped)
        while True:
            try:
                return ask(question)
            except (ClusterUnreachable, AnswerNotUnderstood):
                if not backoff.wait(count=False):
                    raise

    return ask_again


class RateLimit:
    """Delays batches before models and cluster have work with them."""

    def __init__(
        self,
        trouble: Callable[[], str | None],
        *,
        max_documents_per_s: float,
        max_stall_s: float,
        stopped: threading.Event,
        check_every_s: float = CHECK_EVERY_S,
    ) -> None:
        """`trouble` says why the run should wait, None if it need not. `max_documents_per_s` 0 is no limit. `stopped`,
        once set, ends waits early."""
        self._trouble = trouble
        self._max_per_s = max_documents_per_s
        self._max_stall_s = max_stall_s
        self._stopped = stopped
        self._check_every_s = check_every_s
        self._check_at = time.monotonic() + check_every_s
        self._free_at = time.monotonic()

    @classmethod
    def of(cls, settings: IngestSettings, client: OpenSearch, index: str, *, stopped: threading.Event) -> Self:
        """The limit that the settings name, for writes to one index."""
        return cls(
            ClusterHealthCheck(client, index, max_search_ms=settings.max_search_ms),
            max_documents_per_s=settings.max_documents_per_s,
            max_stall_s=settings.max_stall_s,
            stopped=stopped,
        )

    def limited(self, batches: Iterable[Batch[Document]]) -> Iterator[Batch[Document]]:
        """The batches, each when its time has come.

        Raises:
            ClusterBlocked: the cluster's trouble does not end.
        """
        for batch in batches:
            self._wait_for_the_cluster()
            self._wait_for_the_rate(len(batch.documents))
            yield batch

    def _wait_for_the_rate(self, n_documents: int) -> None:
        if not self._max_per_s:
            return
        self._stopped.wait(max(0.0, self._free_at - time.monotonic()))
        self._free_at = max(self._free_at, time.monotonic()) + n_documents / self._max_per_s

    def _wait_for_the_cluster(self) -> None:
        if time.monotonic() < self._check_at:
            return
        began = time.monotonic()
        while (trouble := self._trouble()) is not None and not self._stopped.is_set():
            log.warning("run_waits", reason=trouble)
            if time.monotonic() - began >= self._max_stall_s:
                raise ClusterBlocked(
                    f"{trouble}, for longer than ingest.max_stall_s ({self._max_stall_s:g} s): run it again when the "
                    f"cluster is well"
                )
            self._stopped.wait(self._check_every_s)
        self._check_at = time.monotonic() + self._check_every_s


class ClusterHealthCheck:
    """Checks whether an index has lost a shard, and whether its searches take too long."""

    def __init__(self, client: OpenSearch, index: str, *, max_search_ms: float) -> None:
        """`max_search_ms` as of `IngestSettings`."""
        self._client = client
        self._index = index
        self._load = SearchLoad(max_search_ms) if max_search_ms else None

    def __call__(self) -> str | None:
        """The trouble in words; None if there is none, or this user may not know."""
        try:
            answer = exchange(self._client, "GET", f"/_cluster/health/{quote(self._index, safe='')}")
            if answer.status == 200 and msgspec.json.decode(answer.body, type=_Health).status == "red":
                return f"index {self._index} has lost a shard (cluster health red)"
            return self._load.too_high(index_progress(self._client, self._index)) if self._load else None
        except (ClusterUnreachable, msgspec.DecodeError):
            return None  # The writer meets the same cluster, retries longer, and has better words.


class SearchLoad:
    """Mean time of an index's searches between two reads of its statistics."""

    def __init__(self, max_ms: float) -> None:
        """More than `max_ms` for a search in a shard is too much; 0 never is."""
        self._max_ms = max_ms
        self._before: IndexProgress | None = None

    def too_high(self, now: IndexProgress) -> str | None:
        """What is too slow, in words; None if nothing is. No search since the last call is no load."""
        before, self._before = self._before, now
        if before is None or not self._max_ms or now.searches <= before.searches:
            return None
        mean_ms = (now.search_ms - before.search_ms) / (now.searches - before.searches)
        if mean_ms <= self._max_ms:
            return None
        return f"searches, which take {mean_ms:.0f} ms per shard (ingest.max_search_ms: {self._max_ms:g})"


class _Health(msgspec.Struct):
    status: str
