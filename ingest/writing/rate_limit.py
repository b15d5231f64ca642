"""How fast a run goes on: no faster than it may, and not at all while the cluster has other worries."""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Self
from urllib.parse import quote

import msgspec
from opensearchpy import OpenSearch

from bridge.cluster.connection import exchange
from bridge.cluster.shard_progress import index_progress
from bridge.errors import ClusterBlocked, ClusterUnreachable
from bridge.records import Document
from bridge.settings import IngestSettings
from ingest.stages.batches import Batch
from ingest.writing.search_load import SearchLoad

log = logging.getLogger(__name__)

LOOK_EVERY_S = 5.0
"""How often a run looks at the cluster's state."""


class Pace:
    """Holds batches back before models and cluster have work with them."""

    def __init__(
        self,
        worry: Callable[[], str | None],
        *,
        max_documents_per_s: float,
        max_stall_s: float,
        stopped: threading.Event,
        look_every_s: float = LOOK_EVERY_S,
    ) -> None:
        """`worry` says why the run should wait, None where it need not. `max_documents_per_s` 0 is no bound.
        `stopped`, once set, ends waits early."""
        self._worry = worry
        self._max_per_s = max_documents_per_s
        self._max_stall_s = max_stall_s
        self._stopped = stopped
        self._look_every_s = look_every_s
        self._look_at = time.monotonic() + look_every_s
        self._free_at = time.monotonic()

    @classmethod
    def of(cls, settings: IngestSettings, client: OpenSearch, index: str, *, stopped: threading.Event) -> Self:
        """The pace that the settings ask for, with an eye on one index."""
        return cls(
            ClusterWorries(client, index, max_search_ms=settings.max_search_ms),
            max_documents_per_s=settings.max_documents_per_s,
            max_stall_s=settings.max_stall_s,
            stopped=stopped,
        )

    def held(self, batches: Iterable[Batch[Document]]) -> Iterator[Batch[Document]]:
        """The batches, each when its time has come.

        Raises:
            ClusterBlocked: the cluster's worries do not end.
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
        if time.monotonic() < self._look_at:
            return
        began = time.monotonic()
        while (worry := self._worry()) is not None and not self._stopped.is_set():
            log.warning("the run waits: %s", worry)
            if time.monotonic() - began >= self._max_stall_s:
                raise ClusterBlocked(
                    f"{worry}, for longer than ingest.max_stall_s ({self._max_stall_s:g} s): run it again when the "
                    f"cluster is well"
                )
            self._stopped.wait(self._look_every_s)
        self._look_at = time.monotonic() + self._look_every_s


class ClusterWorries:
    """Is a shard of an index lost, do its searches take too long?"""

    def __init__(self, client: OpenSearch, index: str, *, max_search_ms: float) -> None:
        """`max_search_ms` as of `IngestSettings`."""
        self._client = client
        self._index = index
        self._load = SearchLoad(max_search_ms) if max_search_ms else None

    def __call__(self) -> str | None:
        """What is the matter, for people; None where nothing is, or where this user may not know."""
        try:
            answer = exchange(self._client, "GET", f"/_cluster/health/{quote(self._index, safe='')}")
            if answer.status == 200 and msgspec.json.decode(answer.body, type=_Health).status == "red":
                return f"index {self._index} has lost a shard (cluster health red)"
            return self._load.too_high(index_progress(self._client, self._index)) if self._load else None
        except (ClusterUnreachable, msgspec.DecodeError):
            return None  # The writer meets the same cluster, and has more patience and better words.


class _Health(msgspec.Struct):
    status: str
