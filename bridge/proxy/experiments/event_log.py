"""What `neural-bridge report` reads: comparisons, interleaved pages and clicks, a JSON object a line.

Lines hold ids of documents, and no text of theirs; the words of queries only if `proxy.event_log_queries`
allows. Each is appended by one write to a file opened for it, so several proxies may share a file and anything may
rotate it.
"""

import os
import time
from collections.abc import Hashable, Sequence
from pathlib import Path

import msgspec
import structlog

from bridge.records import Key

log = structlog.get_logger(__name__)


DEPTH = 10
"""How much of two rankings is compared: a first page."""
PERSISTENCE = 0.9
"""How likely a reader is to look at the next hit: the first ten ranks then weigh 65 % of an endless list."""


class Comparison(msgspec.Struct, frozen=True, tag="comparison", tag_field="event"):
    """Shadow mode: the first page of both rankings of one search. `took_ms`: what the bridge needed."""

    time: float
    index: str
    stages: str
    overlap: float
    rank_biased_overlap: float
    took_ms: float


class Impression(msgspec.Struct, frozen=True, tag="impression", tag_field="event"):
    """A page of an interleaved ranking: `own` and `bridge` are the documents on it that each side drafted.

    What makes clicks on it judgements: the words of its `query`, if they may be logged, and the documents as
    `shown`, the first of them at rank `first_rank`.
    """

    time: float
    id: str
    index: str
    stages: str
    own: list[Key]
    bridge: list[Key]
    overlap: float
    rank_biased_overlap: float
    took_ms: float
    query: str | None = None
    first_rank: int = 1
    shown: list[Key] = []


class Click(msgspec.Struct, frozen=True, tag="click", tag_field="event"):
    """A reader chose a document of an impression."""

    time: float
    impression: str
    document: str


Event = Comparison | Impression | Click


class EventLog:
    """Appends events to a file; without one they are forgotten."""

    def __init__(self, path: Path | None) -> None:
        self._path = path

    def append(self, event: Event) -> None:
        """Never fails: a full disk must not cost a search its answer."""
        if self._path is None:
            return
        line = msgspec.json.encode(event) + b"\n"
        try:
            file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640)
            try:
                os.write(file, line)
            finally:
                os.close(file)
        except OSError as error:
            log.warning("event not logged", file=str(self._path), detail=str(error))


def now() -> float:
    """Seconds since 1970, for events."""
    return round(time.time(), 3)


def overlap(one: Sequence[Hashable], other: Sequence[Hashable]) -> float:
    """The share of the longer list's documents that both have; 0…1."""
    return len(set(one) & set(other)) / max(len(one), len(other))


def rank_biased_overlap(
    one: Sequence[Hashable], other: Sequence[Hashable], *, persistence: float = PERSISTENCE
) -> float:
    """How alike two rankings are, the first ranks counting most; 0…1, 1 for equal ones.

    Webber, Moffat, Zobel (TOIS 2010), cut off at the longer list and scaled so that equal lists give 1.
    """
    depth = max(len(one), len(other))
    agreement = sum(
        persistence ** (d - 1) * len(set(one[:d]) & set(other[:d])) / max(len(one[:d]), len(other[:d]))
        for d in range(1, depth + 1)
    )
    return agreement * (1 - persistence) / (1 - persistence**depth)
