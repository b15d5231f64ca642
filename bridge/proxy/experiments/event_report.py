"""What the event log says: how far the rankings differ, what they cost, and which one readers prefer."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from math import comb
from pathlib import Path
from statistics import fmean, quantiles

import msgspec

from bridge.errors import UsageError
from bridge.proxy.experiments import ubi
from bridge.proxy.experiments.event_log import Click, Event, Impression


class IndexReport(msgspec.Struct, frozen=True):
    """One index's searches. Means of the alikeness of first pages, and percentiles of the bridge's time in
    milliseconds. `bridge_wins`, `own_wins`, `ties`: interleaved pages by whose documents had more clicks;
    `p_value`: how often chance alone would favour one side as much (exact sign test, two-sided, ties left out).
    """

    index: str
    searches: int
    overlap: float
    rank_biased_overlap: float
    p50_ms: float
    p95_ms: float
    interleaved: int
    bridge_wins: int
    own_wins: int
    ties: int
    p_value: float | None


class Report(msgspec.Struct, frozen=True):
    """All indices by name. `stray_clicks` name no impression or document of the log."""

    indices: list[IndexReport]
    stray_clicks: int


@dataclass
class _Seen:
    overlaps: list[float] = field(default_factory=list)
    alike: list[float] = field(default_factory=list)
    took_ms: list[float] = field(default_factory=list)
    impressions: list[Impression] = field(default_factory=list)


def read_events(file: Path) -> Iterator[Event]:
    """The events in order, of the log or of a file in UBI's form.

    Raises:
        UsageError: a line is no event; the last one may be half written.
    """
    if ubi.is_ubi(file):
        yield from ubi.to_events(ubi.read_ubi(file))
        return
    with file.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                yield msgspec.json.decode(line, type=Event)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                if line.endswith(b"\n"):
                    raise UsageError(
                        f"{file}:{number} is no event ({error}): expected proxy.event_log's file"
                    ) from error


def report(events: Iterable[Event]) -> Report:
    """Sums up events in any order."""
    by_index: defaultdict[str, _Seen] = defaultdict(_Seen)
    clicks: defaultdict[str, set[str]] = defaultdict(set)
    known: dict[str, Impression] = {}
    for event in events:
        if isinstance(event, Click):
            clicks[event.impression].add(event.document)
            continue
        seen = by_index[event.index]
        seen.overlaps.append(event.overlap)
        seen.alike.append(event.rank_biased_overlap)
        seen.took_ms.append(event.took_ms)
        if isinstance(event, Impression):
            seen.impressions.append(event)
            known[event.id] = event
    stray = sum(
        document not in _drafted(known[impression]) if impression in known else True
        for impression, documents in clicks.items()
        for document in documents
    )
    return Report([_of_index(index, seen, clicks) for index, seen in sorted(by_index.items())], stray)


def _of_index(index: str, seen: _Seen, clicks: dict[str, set[str]]) -> IndexReport:
    wins = {"bridge": 0, "own": 0, "tie": 0}
    for impression in seen.impressions:
        chosen = clicks.get(impression.id, set()) & _drafted(impression)
        if chosen:
            bridge = len(chosen & {doc_id for _, doc_id in impression.bridge})
            own = len(chosen & {doc_id for _, doc_id in impression.own})
            wins["tie" if bridge == own else "bridge" if bridge > own else "own"] += 1
    return IndexReport(
        index=index,
        searches=len(seen.took_ms),
        overlap=round(fmean(seen.overlaps), 4),
        rank_biased_overlap=round(fmean(seen.alike), 4),
        p50_ms=round(_percentile(seen.took_ms, 50), 1),
        p95_ms=round(_percentile(seen.took_ms, 95), 1),
        interleaved=len(seen.impressions),
        bridge_wins=wins["bridge"],
        own_wins=wins["own"],
        ties=wins["tie"],
        p_value=sign_test(wins["bridge"], wins["own"]),
    )


def sign_test(wins: int, losses: int) -> float | None:
    """Two-sided p-value of so many wins and losses if both were equally likely; None without either."""
    n = wins + losses
    if n == 0:
        return None
    at_most = sum(comb(n, k) for k in range(min(wins, losses) + 1))
    return min(1.0, 2 * at_most / 2.0**n)


def _drafted(impression: Impression) -> set[str]:
    return {doc_id for _, doc_id in (*impression.own, *impression.bridge)}


def _percentile(values: list[float], percent: int) -> float:
    return quantiles(values, n=100, method="inclusive")[percent - 1] if len(values) > 1 else values[0]
