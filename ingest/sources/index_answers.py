"""What the cluster answers when an index is read: pages of hits, and documents by their ids."""

import msgspec

from bridge.errors import IngestError

CONTEXT_LOST = b"search_context_missing_exception"
"""Stands in every answer that a lost point in time is the cause of."""

_EMPTY = msgspec.Raw(b"{}")


class PointInTimeLost(IngestError):
    """The point in time is gone: it expired, or its node restarted."""


class Hit(msgspec.Struct):
    """A document of a page; `source` is as the `_source` filter leaves it."""

    id: str = msgspec.field(name="_id")
    seq_no: int = msgspec.field(name="_seq_no")
    primary_term: int = msgspec.field(name="_primary_term")
    source: msgspec.Raw = msgspec.field(name="_source", default_factory=lambda: _EMPTY)
    routing: str | None = msgspec.field(name="_routing", default=None)


class Hits(msgspec.Struct):
    """The hits of a page."""

    hits: list[Hit]


class Shards(msgspec.Struct):
    """How many shards did not answer."""

    failed: int


class Page(msgspec.Struct):
    """A search's answer."""

    timed_out: bool
    shards: Shards = msgspec.field(name="_shards")
    hits: Hits
    pit_id: str | None = None


class Got(msgspec.Struct):
    """A document by its id; the other fields of a hit are missing where it is not found."""

    id: str = msgspec.field(name="_id")
    found: bool = False
    seq_no: int = msgspec.field(name="_seq_no", default=0)
    primary_term: int = msgspec.field(name="_primary_term", default=0)
    source: msgspec.Raw = msgspec.field(name="_source", default_factory=lambda: _EMPTY)
    routing: str | None = msgspec.field(name="_routing", default=None)


class Docs(msgspec.Struct):
    """The answer of `_mget`."""

    docs: list[Got]
