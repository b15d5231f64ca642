"""Sequence numbers of an index's changes, and how long its searches take, from one `_stats` request.

Every change of a shard has a sequence number. Every copy of the shard has carried out all changes up to the global
checkpoint, and keeps them after any failure: a refresh after the checkpoint was read shows all of them to searches.
Above it, a higher number may become visible before a lower one.
"""

from dataclasses import dataclass
from urllib.parse import quote

import msgspec
from opensearchpy import OpenSearch

from bridge.cluster.connection import exchange
from bridge.errors import AccessDenied, AnswerNotUnderstood, IndexUnsuitable


@dataclass(frozen=True, slots=True)
class ShardProgress:
    """Sequence numbers of one shard's primary: of its last change, and its global checkpoint. -1: none yet."""

    last: int
    checkpoint: int


@dataclass(frozen=True, slots=True)
class IndexProgress:
    """An index at one moment. `uuid` distinguishes it from a later one of the same name; `shards` by number; number and
    total time in milliseconds of searches since its nodes started, both counted per shard."""

    name: str
    uuid: str
    shards: dict[int, ShardProgress]
    searches: int
    search_ms: int


class _SequenceNumbers(msgspec.Struct):
    max_seq_no: int
    global_checkpoint: int


class _Routing(msgspec.Struct):
    primary: bool


class _Copy(msgspec.Struct):
    routing: _Routing
    seq_no: _SequenceNumbers | None = None


class _Search(msgspec.Struct):
    query_total: int = 0
    query_time_in_millis: int = 0


class _Total(msgspec.Struct):
    search: _Search = msgspec.field(default_factory=_Search)


class _Index(msgspec.Struct):
    uuid: str
    total: _Total
    shards: dict[int, list[_Copy]]


class _Stats(msgspec.Struct):
    indices: dict[str, _Index]


def index_progress(client: OpenSearch, index: str) -> IndexProgress:
    """The progress of an index, or of an alias of one index; shards without a primary are left out.

    Raises:
        IndexUnsuitable: there is no such index, it is closed, or the name stands for several.
        AccessDenied: this user may not read statistics.
        AnswerNotUnderstood: no statistics came.
    """
    answer = exchange(client, "GET", f"/{quote(index, safe='')}/_stats/search", params={"level": "shards"})
    if answer.status in (401, 403):
        raise AccessDenied(
            f"reading the statistics of {index} was refused ({answer.status}): give the user of cluster.username the "
            f"permission indices:monitor/stats"
        )
    if answer.status in (400, 404):
        raise IndexUnsuitable(f"index {index} does not exist or is closed: there is nothing to follow")
    try:
        found = msgspec.json.decode(answer.body, type=_Stats, strict=False).indices
    except msgspec.DecodeError as error:
        raise AnswerNotUnderstood(f"_stats of {index} answered {answer.status}, no statistics: {error}") from error
    if len(found) != 1:
        raise IndexUnsuitable(f"{index} names {len(found)} indices ({', '.join(sorted(found))}): name one of them")
    ((name, state),) = found.items()
    primaries = {
        number: ShardProgress(copy.seq_no.max_seq_no, copy.seq_no.global_checkpoint)
        for number, copies in state.shards.items()
        for copy in copies
        if copy.routing.primary and copy.seq_no is not None
    }
    searched = state.total.search
    return IndexProgress(name, state.uuid, primaries, searched.query_total, searched.query_time_in_millis)
