"""An existing index as a source: every document once, whatever the cluster does meanwhile.

Each shard is read by sequence number inside a point in time. Sequence numbers only grow, so after a point in time is
lost the next one goes on behind the last number: what was not read yet has kept its number or, if it changed, got a
higher one. A page counts only when it is whole. Several readers share one point in time, each with a slice of it:
the content of a slice never changes.
"""

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from threading import Event
from typing import Any, TypeVar
from urllib.parse import quote
from uuid import uuid4

import msgspec
from opensearchpy import OpenSearch

from bridge.cluster import index as indices
from bridge.cluster.connection import GONE, Answer, capabilities, exchange
from bridge.cluster.dialects import dialect_of
from bridge.errors import AccessDenied, AnswerNotUnderstood, ClusterUnreachable, IndexUnsuitable, IngestError
from bridge.records import Document, DocumentVersion, SourcePosition
from bridge.text import NestedTooDeeply, decode, field_texts, first_text, replace_lone_surrogates
from ingest.sources.json_bytes import JsonProblem, parse_object
from ingest.sources.source import Source, SourceItem, Unreadable
from ingest.sources.versions import is_external, refusal, version_obstacle
from ingest.writing.pace import Backoff, RetryLimits

T = TypeVar("T")

_KEEP_ALIVE = "5m"
_SHARED_KEEP_ALIVE = "1h"
"""Each page of any slice prolongs it: so long may all readers together wait for models and writers."""

_MAX_RESULT_WINDOW = 10_000
"""Hits that one answer may have unless an index's settings say otherwise."""

_KEYS_PER_SHARD = 25
"""So many random keys miss a shard once in 70 billion times."""

_POINT_IN_TIME_LOST = b"search_context_missing_exception"
_NO_INDEX = b"index_not_found_exception"

BEFORE_THE_FIRST = -1
"""No change has this sequence number, nor a lower one."""


class PointInTimeLost(IngestError):
    """The point in time is gone: it expired, or its node restarted."""


class _Hit(msgspec.Struct):
    """A document of a page or of `_mget`; `source` is what the `_source` filter leaves, empty if it cannot be decoded;
    `found` and `error` are of `_mget`."""

    id: str = msgspec.field(name="_id")
    seq_no: int = msgspec.field(name="_seq_no", default=0)
    primary_term: int = msgspec.field(name="_primary_term", default=0)
    source: msgspec.Raw = msgspec.field(name="_source", default_factory=lambda: msgspec.Raw(b"{}"))
    routing: str | None = msgspec.field(name="_routing", default=None)
    version: int = msgspec.field(name="_version", default=1)
    found: bool = False
    error: msgspec.Raw = msgspec.field(default_factory=msgspec.Raw)


class _Hits(msgspec.Struct):
    hits: list[_Hit]


class _Shards(msgspec.Struct):
    failed: int


class _Page(msgspec.Struct):
    timed_out: bool
    shards: _Shards = msgspec.field(name="_shards")
    hits: _Hits
    pit_id: str | None = None


class _Documents(msgspec.Struct):
    docs: list[_Hit]


class IndexDocuments(Source[int]):
    """The documents of one index; its parts are its shards. Skipping items saves no reading."""

    def __init__(
        self,
        client: OpenSearch,
        index: str,
        fields: Sequence[str],
        *,
        text_fields: Sequence[str],
        image_field: str | None = None,
        retry: RetryLimits | None = None,
        stopped: Event | None = None,
        page_documents: int = 500,
        no_external_versions: bool = False,
        goes_on: bool = False,
        read_only: bool = False,
    ) -> None:
        """`fields` are read of each document (`_source` filter), and `image_field`; all of them if `fields` is empty:
        only then are bodies exact to the byte. `stopped`, once set, ends waits early. `no_external_versions`: refuse a
        document whose version an application chose, see `ingest.sources.versions`. `goes_on`: a shard that is read once
        more begins behind the last change that was read of it. `read_only`: this user may have no other right than to
        read.

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
        self._shown_by_reading = read_only and self._dialect.reads_primaries
        self._copies = "_primary" if by_segment or self._shown_by_reading else None
        self._text_fields = text_fields
        self._image_field = image_field
        self._source_filter = {"_source": [*fields, *filter(None, [image_field])]} if fields else {}
        self._retry = retry or RetryLimits()
        self._stopped = stopped or Event()
        self._most_hits = int(state.settings.get("max_result_window", _MAX_RESULT_WINDOW))
        self._page_documents = min(page_documents, self._most_hits)
        self._no_external_versions = no_external_versions
        self._goes_on = goes_on
        self._read_to: dict[int, int] = {}
        self._total: int | None = None
        self._identity = indices.identity(state)
        self.identity = f"index {self._identity}"

    def parts(self) -> Sequence[int]:
        """The numbers of the shards."""
        return range(self.n_shards)

    def read(self, part: int) -> Iterator[SourceItem]:
        """The documents of one shard.

        Raises:
            AnswerNotUnderstood: pages stay incomplete, however often they are requested.
            ClusterError: the cluster does not answer, or does not let this user read.
        """
        self._refresh()
        for item in self.changes(part, after=self._read_to.get(part, BEFORE_THE_FIRST)):
            if self._goes_on:
                self._read_to[part] = item.position.offset
            yield item

    def total(self) -> int:
        """See `Source`."""
        if self._total is None:
            self._total = indices.count(self._client, self._index)
        return self._total

    def refresh(self) -> None:
        """Lets every reading from now on see all that was written before.

        Whoever may read a document may have its shard refreshed for that, so a read-only user asks each primary, the
        copy that is read then, for documents that do not exist.

        Raises:
            AnswerNotUnderstood, ClusterError: as `read` says.
        """
        if not self._shown_by_reading:
            self._client.indices.refresh(index=self._index)
            return
        keys = (uuid4().hex for _ in range(_KEYS_PER_SHARD * self.n_shards))
        params = {"refresh": "true", "realtime": "false", "preference": "_primary"}
        self._get([{"_id": key, "routing": key, "_source": False} for key in keys], params)

    def changes(self, shard: int, *, after: int) -> Generator[SourceItem, None, None]:
        """The documents of one shard whose last change has a higher sequence number than `after`, in the order
        of their changes; the number is the `offset` of a document's position.

        Raises:
            AnswerNotUnderstood, ClusterError: as `read` says.
        """
        backoff: Backoff | None = None
        while True:
            pit = self._open(f"_shards:{shard}{f'|{self._copies}' if self._copies else ''}", _KEEP_ALIVE)
            try:
                while True:
                    page = self._page(pit, after, keep_alive=_KEEP_ALIVE)
                    if not page.hits.hits:
                        return
                    backoff = None
                    pit = page.pit_id or pit
                    for hit in page.hits.hits:
                        after = hit.seq_no
                        yield self._item(hit)
            except PointInTimeLost as lost:
                # What models and writers did since the last page was no wait for the cluster.
                backoff = backoff or Backoff(self._retry, self._stopped)
                if not backoff.wait():
                    raise AnswerNotUnderstood(
                        f"points in time on {self._index} are lost again and again: raise the cluster's limits "
                        f"for open contexts, or see why its nodes restart"
                    ) from lost
                if indices.identity(indices.look(self._client, self._index)) != self._identity:
                    raise self._gone() from lost
            finally:
                self._close(pit)

    @contextmanager
    def point_in_time(self) -> Iterator[str]:
        """The id of a point in time on the whole index, for `slice`; the block's end closes it.

        Raises:
            AnswerNotUnderstood, ClusterError: as `read` says.
        """
        self._refresh()
        pit = self._open(self._copies, _SHARED_KEEP_ALIVE)
        try:
            yield pit
        finally:
            self._close(pit)

    def slice(self, pit: str, number: int, n_slices: int) -> Iterator[SourceItem]:
        """One slice of a point in time, `number` from 0 on: the same items in the same order each time. `n_slices`
        is a multiple of `n_shards`, so that a slice lies in one shard, where no sequence number comes twice.

        Raises:
            PointInTimeLost: the slice cannot be read on.
            AnswerNotUnderstood, ClusterError: as `read` says.
        """
        part = {"field": "_seq_no", "id": number, "max": n_slices} if n_slices > 1 else None
        after = BEFORE_THE_FIRST
        while hits := self._page(pit, after, keep_alive=_SHARED_KEEP_ALIVE, part=part).hits.hits:
            yield from map(self._item, hits)
            after = hits[-1].seq_no

    def sample(self, n_documents: int) -> Iterator[SourceItem]:
        """Random documents, the same ones each time while the index does not change.

        Raises:
            AnswerNotUnderstood, ClusterError: as `read` says.
        """
        body = {
            "size": min(n_documents, self._most_hits),
            "query": {"function_score": {"random_score": {"seed": 0, "field": "_seq_no"}}},
            "seq_no_primary_term": True,
            "track_total_hits": False,
            **self._source_filter,
        }
        page = self._search(f"/{quote(self._index, safe='')}/_search", body)
        yield from map(self._item, page.hits.hits)

    def read_again(self, documents: Sequence[Document]) -> Iterator[SourceItem]:
        """These documents as they are now, without those that were deleted meanwhile.

        Raises:
            AnswerNotUnderstood, ClusterError: as `read` says.
        """
        for begin in range(0, len(documents), self._page_documents):
            page = documents[begin : begin + self._page_documents]
            wanted = [_wanted(document.doc_id, document.routing, **self._source_filter) for document in page]
            yield from (self._item(hit) for hit in self._get(wanted) if hit.found)

    def missing(self, documents: Sequence[Document]) -> Iterator[Document]:
        """Those of the documents, of another index, that this one has not under the same id and routing.

        Raises:
            AnswerNotUnderstood, ClusterError: as `read` says.
        """
        for begin in range(0, len(documents), self._page_documents):
            page = documents[begin : begin + self._page_documents]
            found = self._get([_wanted(document.doc_id, document.routing, _source=False) for document in page])
            if [hit.id for hit in found] != [document.doc_id for document in page]:
                raise AnswerNotUnderstood(f"_mget of {self._index} answered for other documents than were requested")
            yield from (document for document, hit in zip(page, found, strict=True) if not hit.found)

    def _refresh(self) -> None:
        """Lets everything that was written so far be read. A user who may only read, or a blocked index, gets what the
        index's own refreshes have made visible."""
        backoff = Backoff(self._retry, self._stopped)
        while True:
            with suppress(ClusterUnreachable):
                status = exchange(self._client, "POST", f"/{quote(self._index, safe='')}/_refresh").status
                if status < 500 and status != 429:
                    return
            if not backoff.wait():
                return  # Whatever keeps it away keeps the reading away too, which says so.

    def _open(self, preference: str | None, keep_alive: str) -> str:
        path = self._dialect.pit_path(quote(self._index, safe=""))
        params = {"keep_alive": keep_alive} | ({"preference": preference} if preference else {})
        opened = self._ask("POST", path, dict[str, Any], params=params)
        try:
            return self._dialect.pit_id(opened)
        except KeyError as error:
            raise AnswerNotUnderstood(f"opening a point in time on {self._index} gave no id") from error

    def _close(self, pit: str) -> None:
        path, body = self._dialect.pit_closing(pit)
        # It ends by itself after a while; a run must not fail over it.
        with suppress(ClusterUnreachable):
            exchange(self._client, "DELETE", path, body=msgspec.json.encode(body))

    def _page(self, pit: str, after: int, *, keep_alive: str, part: dict[str, Any] | None = None) -> _Page:
        body: dict[str, Any] = {
            "size": self._page_documents,
            "pit": {"id": pit, "keep_alive": keep_alive},
            "sort": [{"_seq_no": "asc"}],
            "search_after": [after],
            "seq_no_primary_term": True,
            "version": True,
            "track_total_hits": False,
            **self._source_filter,
        }
        if part:
            body["slice"] = part
        return self._search("/_search", body)

    def _search(self, path: str, body: dict[str, Any]) -> _Page:
        try:
            return self._ask("POST", path, _Page, body=body)
        except NestedTooDeeply:
            # One document nests too deeply to be decoded: the others are read one by one, by the page's own versions.
            page = self._ask("POST", path, _Page, body={**body, "_source": False})
            for hit in page.hits.hits:
                hit.source = self._source_of(hit)
            return page

    def _source_of(self, hit: _Hit) -> msgspec.Raw:
        try:
            return self._get([_wanted(hit.id, hit.routing, **self._source_filter)])[0].source
        except NestedTooDeeply:
            return msgspec.Raw()

    def _get(self, wanted: Sequence[Mapping[str, object]], params: dict[str, str] | None = None) -> list[_Hit]:
        path = f"/{quote(self._index, safe='')}/_mget"
        return self._ask("POST", path, _Documents, params=params, body={"docs": wanted}).docs

    def _gone(self) -> IndexUnsuitable:
        return IndexUnsuitable(
            f"index {self._index} is gone: it was deleted, or replaced by another one of this name, while it was read; "
            f"{GONE}"
        )

    def _ask(
        self, method: str, path: str, answer_type: type[T], *, params: dict[str, str] | None = None, body: object = None
    ) -> T:
        """Repeats a request until its answer is whole: reading again changes nothing."""
        backoff = Backoff(self._retry, self._stopped)
        encoded = msgspec.json.encode(body) if body is not None else None
        while True:
            try:
                return self._whole(exchange(self._client, method, path, params=params, body=encoded), answer_type)
            except (ClusterUnreachable, AnswerNotUnderstood):
                if not backoff.wait():
                    raise

    def _whole(self, answer: Answer, answer_type: type[T]) -> T:
        if _POINT_IN_TIME_LOST in answer.body:
            raise PointInTimeLost(
                f"a point in time on {self._index} is lost: raise the cluster's limits for open contexts, or see why "
                f"its nodes restart"
            )
        if answer.status == 404 and _NO_INDEX in answer.body:
            raise self._gone()
        if answer.status in (401, 403):
            raise AccessDenied(
                f"reading {self._index} was refused ({answer.status}): give the user of cluster.username the "
                f"permission to read it"
            )
        if answer.status != 200:
            raise AnswerNotUnderstood(f"reading {self._index} was answered {answer.status}, again and again")
        try:
            decoded = decode(answer.body, answer_type)
        except NestedTooDeeply:
            raise
        except msgspec.DecodeError as error:
            raise AnswerNotUnderstood(f"reading {self._index} gave no OpenSearch answer: {error}") from error
        if isinstance(decoded, _Page) and (decoded.timed_out or decoded.shards.failed):
            raise AnswerNotUnderstood(
                f"a page of {self._index} is incomplete (timed out: {decoded.timed_out}, failed shards: "
                f"{decoded.shards.failed}), again and again: it is not the end of the index"
            )
        if isinstance(decoded, _Documents):
            for problem in (bytes(hit.error) for hit in decoded.docs if bytes(hit.error)):
                if _NO_INDEX in problem:
                    raise self._gone()
                raise AnswerNotUnderstood(f"documents of {self._index} cannot be read: {problem[:200]!r}")
        return decoded

    def _item(self, hit: _Hit) -> SourceItem:
        position = SourcePosition(self._index, hit.seq_no)
        if self._no_external_versions and is_external(hit.version, hit.seq_no):
            raise refusal(self._index, version_obstacle(hit.id, hit.version, hit.seq_no))
        if not bytes(hit.source):
            return Unreadable(position, "nested_too_deeply", "the document is nested too deeply", b"", hit.id)
        body = replace_lone_surrogates(bytes(hit.source))
        try:
            values = parse_object(body)
        except JsonProblem as problem:
            return Unreadable(position, problem.kind, str(problem), body, hit.id)
        texts = field_texts(values, self._text_fields)
        image, version = first_text(values, self._image_field), DocumentVersion(hit.seq_no, hit.primary_term)
        return Document(hit.id, body, texts, position, hit.routing, version, image=image)


def _wanted(doc_id: str, routing: str | None, **source: object) -> dict[str, object]:
    return {"_id": doc_id, **source} | ({"routing": routing} if routing else {})
