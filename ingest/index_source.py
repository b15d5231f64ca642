"""An existing index as a source: every document once, whatever the cluster does meanwhile.

Each shard is read by sequence number inside a point in time. Sequence numbers only grow, so where a point
in time is lost the next one goes on behind the last number: what was not read yet has kept its number or,
if it changed, got a higher one. A page counts only when it is whole.
"""

import threading
from collections.abc import Generator, Iterator, Sequence
from contextlib import suppress
from itertools import chain, islice
from typing import Any, TypeVar
from urllib.parse import quote

import msgspec
from opensearchpy import OpenSearch

from bridge.cluster import index as indices
from bridge.cluster.connection import Answer, capabilities, exchange
from bridge.cluster.dialects import dialect_of
from bridge.errors import AccessDenied, AnswerNotUnderstood, ClusterUnreachable
from bridge.passages import field_texts
from bridge.records import Document, DocumentVersion, SourcePosition
from ingest.json_objects import JsonProblem, parse_object
from ingest.patience import Patience, RetryLimits
from ingest.sources import SourceItem, Unreadable

T = TypeVar("T")

_KEEP_ALIVE = "5m"
BEFORE_THE_FIRST = -1
"""No change has this sequence number, nor a lower one."""

_CONTEXT_LOST = "search_context_missing_exception"


class _Hit(msgspec.Struct):
    id: str = msgspec.field(name="_id")
    seq_no: int = msgspec.field(name="_seq_no")
    primary_term: int = msgspec.field(name="_primary_term")
    source: msgspec.Raw = msgspec.field(name="_source", default_factory=lambda: msgspec.Raw(b"{}"))
    routing: str | None = msgspec.field(name="_routing", default=None)


class _Hits(msgspec.Struct):
    hits: list[_Hit]


class _Shards(msgspec.Struct):
    failed: int


class _Got(msgspec.Struct):
    """A document by its id; the other fields of a hit are missing where it is not found."""

    id: str = msgspec.field(name="_id")
    found: bool = False
    seq_no: int = msgspec.field(name="_seq_no", default=0)
    primary_term: int = msgspec.field(name="_primary_term", default=0)
    source: msgspec.Raw = msgspec.field(name="_source", default_factory=lambda: msgspec.Raw(b"{}"))
    routing: str | None = msgspec.field(name="_routing", default=None)


class _Docs(msgspec.Struct):
    docs: list[_Got]


class _Page(msgspec.Struct):
    timed_out: bool
    shards: _Shards = msgspec.field(name="_shards")
    hits: _Hits
    pit_id: str | None = None


class _ContextLost(Exception):
    """The point in time is gone: it expired, or its node restarted."""


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
        self._n_shards = int(state.settings.get("number_of_shards", 1))
        # Replicas that copy segments show changes later than their primary, whatever was refreshed.
        by_segment = state.settings.get("replication", {}).get("type") == "SEGMENT"
        self._copies = "|_primary" if by_segment else ""
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
        every = chain.from_iterable(self.changes(shard, after=BEFORE_THE_FIRST) for shard in range(self._n_shards))
        return islice(every, skip, None)

    def changes(self, shard: int, *, after: int) -> Generator[SourceItem, None, None]:
        """The documents of one shard whose last change has a higher sequence number than `after`, in the order
        of their changes; a document's position holds its number.

        Raises:
            AnswerNotUnderstood, ClusterError: as `items` says.
        """
        patience = Patience(self._retry, self._stopped)
        while True:
            pit = self._open(shard)
            try:
                while True:
                    page = self._page(pit, after)
                    if not page.hits.hits:
                        return
                    patience = Patience(self._retry, self._stopped)
                    pit = page.pit_id or pit
                    for hit in page.hits.hits:
                        after = hit.seq_no
                        yield self._item(hit)
            except _ContextLost as lost:
                if not patience.wait():
                    raise AnswerNotUnderstood(
                        f"points in time on {self._index} are lost again and again: raise the cluster's limits "
                        f"for open contexts, or see why its nodes restart"
                    ) from lost
            finally:
                self._close(pit)

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
        page = self._asked("POST", path, params=None, body=msgspec.json.encode(body), answer_type=_Page)
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
            for got in self._asked("POST", path, params=None, body=body, answer_type=_Docs).docs:
                if got.found:
                    yield self._item(got)

    def total(self) -> int:
        """See `Source`."""
        if self._total is None:
            self._total = indices.count(self._client, self._index)
        return self._total

    def _open(self, shard: int) -> str:
        path = self._dialect.pit_path(quote(self._index, safe=""))
        params = {"keep_alive": _KEEP_ALIVE, "preference": f"_shards:{shard}{self._copies}"}
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

    def _page(self, pit: str, after: int) -> _Page:
        body: dict[str, Any] = {
            "size": self._page_documents,
            "pit": {"id": pit, "keep_alive": _KEEP_ALIVE},
            "sort": [{"_seq_no": "asc"}],
            "search_after": [after],
            "seq_no_primary_term": True,
            "track_total_hits": False,
        }
        if self._fields:
            body["_source"] = self._fields
        return self._asked("POST", "/_search", params=None, body=msgspec.json.encode(body), answer_type=_Page)

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
        if _CONTEXT_LOST.encode() in answer.body:
            raise _ContextLost
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
        if isinstance(found, _Page) and (found.timed_out or found.shards.failed):
            raise AnswerNotUnderstood(
                f"a page of {self._index} is incomplete (timed out: {found.timed_out}, failed shards: "
                f"{found.shards.failed}), again and again: it is not the end of the index"
            )
        return found

    def _item(self, hit: _Hit | _Got) -> SourceItem:
        body = bytes(hit.source)
        position = SourcePosition(self._index, hit.seq_no)
        try:
            values = parse_object(body)
        except JsonProblem as problem:
            return Unreadable(position, problem.kind, str(problem), body, hit.id)
        texts = field_texts(values, self._text_fields)
        return Document(hit.id, body, texts, position, hit.routing, DocumentVersion(hit.seq_no, hit.primary_term))
