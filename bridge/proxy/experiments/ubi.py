"""The event log in the form of User Behavior Insights 1.3 (UBI), which OpenSearch's Search Relevance Workbench reads.

A page is a query of the index `ubi_queries`. Each of its documents is an event `impression` of the index `ubi_events`,
and each chosen one an event `click`. Files hold both as the lines of `_bulk`. The Workbench reads an event only if it
has no field that UBI does not name, so what only we know of a page stands in the query's attributes.
"""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from bridge.errors import UsageError
from bridge.proxy.experiments.event_log import Click, Event, Impression
from bridge.records import Key

QUERIES = "ubi_queries"
EVENTS = "ubi_events"

CLIENT = "neural-bridge"
"""Which client searched. The log does not know, and holds no word of readers."""
_QUERY_ID_CHARACTERS = 16
"""Of an impression's name: its time and random bytes. The whole name is longer than the 100 characters that `query_id`
may have."""
_LONGEST_NAME = 100
"""Of an application; a list of indices may be longer."""


class Query(msgspec.Struct, frozen=True, omit_defaults=True):
    """A document of `ubi_queries`: a search, and the `_id` of the documents on the page that answered it."""

    query_id: str
    user_query: str | None = None
    client_id: str | None = None
    timestamp: str | None = None
    application: str | None = None
    query_response_id: str | None = None
    query_response_hit_ids: list[str | int] | None = None
    query_attributes: dict[str, object] | None = None


class Position(msgspec.Struct, frozen=True, omit_defaults=True):
    """`ordinal`: the rank, from 1 on; some collectors count from 0."""

    ordinal: int | None = None


class Object(msgspec.Struct, frozen=True, omit_defaults=True):
    """A document, by the value that it has in `object_id_field`."""

    object_id: str | int | None = None
    object_id_field: str | None = None


class Attributes(msgspec.Struct, frozen=True, omit_defaults=True):
    """What an event is about, and where that stood."""

    object: Object | None = None
    position: Position | None = None


class Behaviour(msgspec.Struct, frozen=True, omit_defaults=True):
    """A document of `ubi_events`: what a reader did or saw."""

    action_name: str
    query_id: str | None = None
    user_query: str | None = None
    client_id: str | None = None
    timestamp: str | None = None
    application: str | None = None
    event_attributes: Attributes | None = None


Record = Query | Behaviour


class _Draft(msgspec.Struct, frozen=True):
    """The attributes of an interleaved page's query; written as strings, as the Workbench has them. `drafted_by`: `own`
    or `bridge` for each document, after one another."""

    stages: str
    first_rank: int
    overlap: float
    rank_biased_overlap: float
    took_ms: float
    drafted_by: str


class _Line(msgspec.Struct, frozen=True):
    """What tells documents of the two indices, the actions of `_bulk` and lines of the event log apart."""

    action_name: str | None = None
    query_id: str | None = None
    user_query: str | None = None
    index: object = None
    create: object = None
    event: object = None

    @property
    def is_ubi(self) -> bool:
        return any((self.action_name, self.query_id, self.user_query is not None, self.index, self.create))


def to_ubi(events: Iterable[Event]) -> Iterator[bytes]:
    """The lines of `_bulk` for the pages whose words the log holds, and for the clicks on them, in any order.

    Everything has an `_id` of its own, so a file that is loaded twice adds nothing.
    """
    pages: dict[str, Impression] = {}
    clicks: list[Click] = []
    for event in events:
        if isinstance(event, Impression) and event.query is not None:
            pages[event.id] = event
            yield from _lines(QUERIES, _query_id(event), _query(event))
            for ordinal, (_, doc_id) in enumerate(event.shown, start=event.first_rank):
                seen = _behaviour("impression", event, doc_id, ordinal, event.time)
                yield from _lines(EVENTS, f"{seen.query_id}-{ordinal}", seen)
        elif isinstance(event, Click):
            clicks.append(event)
    for click in clicks:
        page = pages.get(click.impression)
        doc_ids = [doc_id for _, doc_id in page.shown] if page is not None else []
        if page is not None and click.document in doc_ids:
            ordinal = page.first_rank + doc_ids.index(click.document)
            chosen = _behaviour("click", page, click.document, ordinal, click.time)
            yield from _lines(EVENTS, f"{chosen.query_id}-{ordinal}-click", chosen)


def is_ubi(file: Path) -> bool:
    """Whether the file's first line is one of UBI's rather than of the event log."""
    with file.open("rb") as lines:
        try:
            first = msgspec.json.decode(lines.readline(), type=_Line)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return False
    return first.event is None and first.is_ubi


def read_ubi(file: Path) -> Iterator[Record]:
    """Queries and events in a file with the lines of `_bulk`, or with lines that hold documents alone. Queries without
    a `query_id`, to which no event can belong, are left out.

    Raises:
        UsageError: a line is neither; the last one may be half written.
    """
    with file.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                kind = msgspec.json.decode(line, type=_Line)
                if kind.action_name is not None:
                    yield msgspec.json.decode(line, type=Behaviour)
                elif kind.query_id is not None:
                    yield msgspec.json.decode(line, type=Query)
                elif not kind.is_ubi:
                    raise msgspec.ValidationError("expected a document of ubi_queries or ubi_events, or its action")
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                if line.endswith(b"\n"):
                    raise UsageError(f"{file}:{number} is no line of User Behavior Insights ({error})") from error


def to_events(records: Iterable[Record]) -> Iterator[Event]:
    """The interleaved pages that the bridge logged, and all clicks. The index of a page is that of its documents.

    Raises:
        UsageError: a page of ours was changed.
    """
    for record in records:
        if isinstance(record, Behaviour):
            chosen = clicked(record)
            if chosen is not None:
                yield Click(0.0, *chosen)
        elif "drafted_by" in (record.query_attributes or {}):
            try:
                yield _impression(record, msgspec.convert(record.query_attributes, _Draft, strict=False))
            except msgspec.ValidationError as error:
                raise UsageError(
                    f"query {record.query_id} of {QUERIES}: its query_attributes were changed ({error})"
                ) from error


def clicked(event: Behaviour) -> tuple[str, str] | None:
    """The query_id and the document of a click; None if the event is none, or lacks one of them."""
    doc_id = _document(event)
    if event.action_name.lower() != "click" or event.query_id is None or doc_id is None:
        return None
    return event.query_id, doc_id


def impression(event: Behaviour) -> tuple[str, str, int] | None:
    """The query_id, the document and its rank, as its collector counts; None if the event shows none."""
    doc_id = _document(event)
    position = event.event_attributes.position if event.event_attributes is not None else None
    if event.action_name.lower() != "impression" or event.query_id is None or doc_id is None:
        return None
    return (event.query_id, doc_id, position.ordinal) if position and position.ordinal is not None else None


def _document(event: Behaviour) -> str | None:
    attributes = event.event_attributes
    if attributes is None or attributes.object is None or attributes.object.object_id is None:
        return None
    return str(attributes.object.object_id)


def _query_id(page: Impression) -> str:
    return page.id[:_QUERY_ID_CHARACTERS]


def _query(page: Impression) -> Query:
    bridge = set(page.bridge)
    draft = _Draft(
        stages=page.stages,
        first_rank=page.first_rank,
        overlap=page.overlap,
        rank_biased_overlap=page.rank_biased_overlap,
        took_ms=page.took_ms,
        drafted_by=" ".join("bridge" if key in bridge else "own" for key in page.shown),
    )
    return Query(
        query_id=_query_id(page),
        user_query=page.query,
        client_id=CLIENT,
        timestamp=_timestamp(page.time),
        application=page.index[:_LONGEST_NAME],
        query_response_id=_query_id(page),
        query_response_hit_ids=[doc_id for _, doc_id in page.shown],
        query_attributes={name: str(value) for name, value in msgspec.structs.asdict(draft).items()},
    )


def _behaviour(action: str, page: Impression, doc_id: str, rank: int, seconds: float) -> Behaviour:
    return Behaviour(
        action_name=action,
        query_id=_query_id(page),
        user_query=page.query,
        client_id=CLIENT,
        timestamp=_timestamp(seconds),
        application=page.index[:_LONGEST_NAME],
        event_attributes=Attributes(Object(doc_id, "_id"), Position(rank)),
    )


def _impression(query: Query, draft: _Draft) -> Impression:
    shown: list[Key] = [(query.application or "", str(doc_id)) for doc_id in query.query_response_hit_ids or ()]
    sides = list(zip(shown, draft.drafted_by.split(), strict=False))
    return Impression(
        time=0.0,
        id=query.query_id,
        index=query.application or "",
        stages=draft.stages,
        own=[key for key, side in sides if side == "own"],
        bridge=[key for key, side in sides if side == "bridge"],
        overlap=draft.overlap,
        rank_biased_overlap=draft.rank_biased_overlap,
        took_ms=draft.took_ms,
        query=query.user_query,
        first_rank=draft.first_rank,
        shown=shown,
    )


def _lines(index: str, doc_id: str, record: Record) -> Iterator[bytes]:
    yield msgspec.json.encode({"index": {"_index": index, "_id": doc_id}}) + b"\n"
    yield msgspec.json.encode(record) + b"\n"


def _timestamp(seconds: float) -> str:
    """With milliseconds and a zone, as the indices' format `strict_date_time` wants it."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
