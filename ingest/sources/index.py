"""An existing index as a source: every document once, whatever the cluster does meanwhile.

Each shard is read by sequence number inside a point in time. Sequence numbers only grow, so where a point
in time is lost the next one goes on behind the last number: what was not read yet has kept its number or,
if it changed, got a higher one. A page counts only when it is whole. Several readers share one point in time,
each with a slice of it: what a slice holds never changes.
"""

import threading
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import chain, islice
from typing import Any, TypeVar
from urllib.parse import quote

import msgspec
from opensearchpy import OpenSearch

from bridge.cluster import index as indices
from bridge.cluster.connection import Answer, capabilities, exchange
from bridge.cluster.dialects import dialect_of
from bridge.errors import AccessDenied, AnswerNotUnderstood, ClusterUnreachable
from bridge.records import Document, DocumentVersion, SourcePosition
from bridge.text.passages import field_texts
from ingest.sources.index_answers import CONTEXT_LOST, Docs, Got, Hit, Page, PointInTimeLost
from ingest.sources.json_objects import JsonProblem, parse_object
from ingest.sources.opening import SourceItem, Unreadable
from ingest.writing.retry import Patience, RetryLimits

T = TypeVar("T")

_KEEP_ALIVE = "5m"
_SHARED_KEEP_ALIVE = "1h"
"""Each page of any slice prolongs it: so long may all readers together wait for models and writers."""

BEFORE_THE_FIRST = -1
"""No change has this sequence number, nor a lower one."""


class IndexDocuments:
    """The documents of one index, by shard and sequence number."""

    resumable = False

    def __init__(
        self,
        client: OpenSearch,
        index: str,
        fields: Sequence[str],
        *,
        text_fields: Sequence[str],
        retry: RetryLimits,
        stopped: threading.Event,
        page_documents: int = 500,
    ) -> None:
        """`fields` are read of each document (`_source` filter), all where it is empty: only then are bodies
        exact to the byte.

        Raises:
            IndexUnsuitable: there is no such index.
        """
        state = indices.look(client, index)
        self._client = client
        self._index = state.name
        self._dialect = dialect_of(capabilities(client))
        self.n_shards = int(state.settings.get("number_of_shards", 1))
        # Replicas that copy segments show changes later than their primary, whatever was refreshed.
        by_segment = state.settings.get("replication", {}).get("type") == "SEGMENT"
        self._copies = "_primary" if by_segment else None
        self._fields = list(fields)
        self._text_fields = text_fields
        self._retry = retry
        self._stopped = stopped
        self._page_documents = page_documents
        self._total: int | None = None
        self.identity = f"index {indices.identity(state)}"

    def items(self, skip: int = 0) -> Iterator[SourceItem]:
        """See `Source`; skipping saves nothing here.

        Raises:
            AnswerNotUnderstood: pages stay incomplete, however often they are asked for.
            ClusterError: the cluster does not answer, or does not let this user read.
        """
        every = chain.from_iterable(self.changes(shard, after=BEFORE_THE_FIRST) for shard in range(self.n_shards))
        return islice(every, skip, None)

    def changes(self, shard: int, *, after: int) -> Generator[SourceItem, None, None]:
        """The documents of one shard whose last change has a higher sequence number than `after`, in the order
        of their changes; a document's position holds its number.

        Raises:
            AnswerNotUnderstood, ClusterError: as `items` says.
        """
        patience = Patience(self._retry, self._stopped)
        while True:
            pit = self._open(f"_shards:{shard}{f'|{self._copies}' if self._copies else ''}", _KEEP_ALIVE)
            try:
                while True:
                    page = self._page(pit, after, keep_alive=_KEEP_ALIVE)
                    if not page.hits.hits:
                        return
                    patience = Patience(self._retry, self._stopped)
                    pit = page.pit_id or pit
                    for hit in page.hits.hits:
                        after = hit.seq_no
                        yield self._item(hit)
            except PointInTimeLost as lost:
                if not patience.wait():
                    raise AnswerNotUnderstood(
                        f"points in time on {self._index} are lost again and again: raise the cluster's limits "
                        f"for open contexts, or see why its nodes restart"
                    ) from lost
            finally:
                self._close(pit)

    @contextmanager
    def point_in_time(self) -> Iterator[str]:
        """The id of a point in time on the whole index, for `slice`; it is given up with the block.

        Raises:
            AnswerNotUnderstood, ClusterError: as `items` says.
        """
        pit = self._open(self._copies, _SHARED_KEEP_ALIVE)
        try:
            yield pit
        finally:
            self._close(pit)

    def slice(self, pit: str, number: int, n_slices: int) -> Iterator[SourceItem]:
        """One slice of a point in time, `number` from 0 on: the same items in the same order each time. `n_slices`
        is a multiple of `n_shards`, so that a slice lies in one shard, where no sequence number comes twice.

        Raises:
            PointInTimeLost: it cannot be read on.
            AnswerNotUnderstood, ClusterError: as `items` says.
        """
        part = {"field": "_seq_no", "id": number, "max": n_slices} if n_slices > 1 else None
        after = BEFORE_THE_FIRST
        while hits := self._page(pit, after, keep_alive=_SHARED_KEEP_ALIVE, part=part).hits.hits:
            yield from map(self._item, hits)
            after = hits[-1].seq_no

    def sample(self, n_documents: int) -> Iterator[SourceItem]:
        """Documents chosen at random, the same ones each time while the index does not change.

        Raises:
            AnswerNotUnderstood, ClusterError: as `items` says.
        """
        body = {
            "size": n_documents,
            "query": {"function_score": {"random_score": {"seed": 0, "field": "_seq_no"}}},
            "seq_no_primary_term": True,
            "track_total_hits": False,
        } | ({"_source": self._fields} if self._fields else {})
        path = f"/{quote(self._index, safe='')}/_search"
        page = self._asked("POST", path, params=None, body=msgspec.json.encode(body), answer_type=Page)
        yield from map(self._item, page.hits.hits)

    def read_again(self, documents: Sequence[Document]) -> Iterator[SourceItem]:
        """These documents as they are now; those that were deleted meanwhile are not among them.

        Raises:
            AnswerNotUnderstood, ClusterError: as `items` says.
        """
        for begin in range(0, len(documents), self._page_documents):
            wanted = [
                {"_id": document.doc_id}
                | ({"routing": document.routing} if document.routing else {})
                | ({"_source": self._fields} if self._fields else {})
                for document in documents[begin : begin + self._page_documents]
            ]
            path = f"/{quote(self._index, safe='')}/_mget"
            body = msgspec.json.encode({"docs": wanted})
            for got in self._asked("POST", path, params=None, body=body, answer_type=Docs).docs:
                if got.found:
                    yield self._item(got)

    def total(self) -> int:
        """See `Source`."""
        if self._total is None:
            self._total = indices.count(self._client, self._index)
        return self._total

    def _open(self, preference: str | None, keep_alive: str) -> str:
        path = self._dialect.pit_path(quote(self._index, safe=""))
        params = {"keep_alive": keep_alive} | ({"preference": preference} if preference else {})
        opened = self._asked("POST", path, params=params, body=None, answer_type=dict[str, Any])
        try:
            return self._dialect.pit_id(opened)
        except KeyError as error:
            raise AnswerNotUnderstood(f"opening a point in time on {self._index} gave no id") from error

    def _close(self, pit: str) -> None:
        path, body = self._dialect.pit_closing(pit)
        # It ends by itself after a while; a run must not fail over it.
        with suppress(ClusterUnreachable):
            exchange(self._client, "DELETE", path, body=msgspec.json.encode(body))

    def _page(self, pit: str, after: int, *, keep_alive: str, part: dict[str, Any] | None = None) -> Page:
        body: dict[str, Any] = {
            "size": self._page_documents,
            "pit": {"id": pit, "keep_alive": keep_alive},
            "sort": [{"_seq_no": "asc"}],
            "search_after": [after],
            "seq_no_primary_term": True,
            "track_total_hits": False,
        }
        if self._fields:
            body["_source"] = self._fields
        if part:
            body["slice"] = part
        return self._asked("POST", "/_search", params=None, body=msgspec.json.encode(body), answer_type=Page)

    def _asked(
        self, method: str, path: str, *, params: dict[str, str] | None, body: bytes | None, answer_type: type[T]
    ) -> T:
        """Asks until the answer is whole: reading again changes nothing."""
        patience = Patience(self._retry, self._stopped)
        while True:
            try:
                return self._whole(exchange(self._client, method, path, params=params, body=body), answer_type)
            except (ClusterUnreachable, AnswerNotUnderstood):
                if not patience.wait():
                    raise

    def _whole(self, answer: Answer, answer_type: type[T]) -> T:
        if CONTEXT_LOST in answer.body:
            raise PointInTimeLost(
                f"a point in time on {self._index} is lost: raise the cluster's limits for open contexts, or see why "
                f"its nodes restart"
            )
        if answer.status in (401, 403):
            raise AccessDenied(
                f"reading {self._index} was refused ({answer.status}): give the user of cluster.username the "
                f"permission to read it"
            )
        if answer.status != 200:
            raise AnswerNotUnderstood(f"reading {self._index} was answered {answer.status}, again and again")
        try:
            found = msgspec.json.decode(answer.body, type=answer_type)
        except msgspec.DecodeError as error:
            raise AnswerNotUnderstood(f"reading {self._index} gave no OpenSearch answer: {error}") from error
        if isinstance(found, Page) and (found.timed_out or found.shards.failed):
            raise AnswerNotUnderstood(
                f"a page of {self._index} is incomplete (timed out: {found.timed_out}, failed shards: "
                f"{found.shards.failed}), again and again: it is not the end of the index"
            )
        return found

    def _item(self, hit: Hit | Got) -> SourceItem:
        body = bytes(hit.source)
        position = SourcePosition(self._index, hit.seq_no)
        try:
            values = parse_object(body)
        except JsonProblem as problem:
            return Unreadable(position, problem.kind, str(problem), body, hit.id)
        texts = field_texts(values, self._text_fields)
        return Document(hit.id, body, texts, position, hit.routing, DocumentVersion(hit.seq_no, hit.primary_term))
