"""Interleaved answers: the application's ranking and the bridge's share a page, and clicks tell which is better.

Team draft (Radlinski, Kurup, Joachims, CIKM 2008, "How does clickthrough data reflect retrieval quality?"):
the two sides pick in turn, each its best document not yet on the list; who picks first is drawn anew for
each pair of picks.
"""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Literal

import msgspec

from bridge.proxy.experiments.event_log import DEPTH, Click, EventLog, Impression, now, overlap, rank_biased_overlap
from bridge.proxy.experiments.impressions import Impressions
from bridge.proxy.transport.refusals import Refused
from bridge.proxy.upgrade.planning import Plan
from bridge.proxy.upgrade.ranking import Ranked, RankingCache
from bridge.records import Key, RankedHit
from bridge.search.collapse import Group
from bridge.text import decode

CLICK_PATH = "/_bridge/click"
MAX_CLICK_BYTES = 4096

Side = Literal["own", "bridge"]


class _ClickBody(msgspec.Struct, forbid_unknown_fields=True):
    """The body of a click: the impression from the answer's header, and the `_id` of the document chosen."""

    impression: str
    document: str


class Interleaving:
    """Ranks, and mixes the application's own ranking in."""

    def __init__(
        self, rankings: RankingCache, events: EventLog, impressions: Impressions, *, log_queries: bool
    ) -> None:
        """`log_queries`: the log may hold the words of queries."""
        self._rankings = rankings
        self._events = events
        self._impressions = impressions
        self._log_queries = log_queries

    async def rank(self, plan: Plan) -> Ranked:
        """The mixed ranking; the bridge's alone if the own one cannot be had. Never fails."""
        # An explained ranking runs the application's own query as a leg too.
        ranked = await self._rankings.rank(replace(plan, explain=True))
        own = ranked.ranking.own
        bridge = {hit.key: hit for hit in ranked.ranking.hits}
        if not own or not bridge:
            return ranked
        # The same draft for every page of a query, so that pages neither repeat nor skip.
        seed = f"{plan.expression}\0{plan.request.text}"
        drafted = list(team_draft(own, list(bridge), seed=seed, groups=ranked.ranking.groups))
        n = len(drafted)
        hits = [
            msgspec.structs.replace(bridge.get(key) or RankedHit(*key, score=0.0), score=1 + (n - i) / n)
            for i, (key, _) in enumerate(drafted)
        ]
        page = drafted[plan.request.start : plan.request.start + plan.request.size]
        impression = self._impressions.name([doc_id for (_, doc_id), _ in page])
        compared = own[:DEPTH], list(bridge)[:DEPTH]
        self._events.append(
            Impression(
                time=now(),
                id=impression,
                index=plan.expression,
                stages=ranked.stages,
                own=[key for key, side in page if side == "own"],
                bridge=[key for key, side in page if side == "bridge"],
                overlap=round(overlap(*compared), 4),
                rank_biased_overlap=round(rank_biased_overlap(*compared), 4),
                took_ms=round(sum(ranked.notes.timings_ms.values()), 1),
                query=plan.request.text if self._log_queries else None,
                first_rank=plan.request.start + 1,
                shown=[key for key, _ in page],
            )
        )
        return replace(ranked, ranking=replace(ranked.ranking, hits=hits), impression=impression)

    def clicked(self, body: bytes) -> None:
        """Log a click; of several on one document, the first.

        Raises:
            Refused: 400; the body is no click on a page that was shown. 429; the page has had too many.
        """
        try:
            click = decode(body, _ClickBody)
        except msgspec.DecodeError as error:
            raise Refused(
                400,
                "illegal_argument_exception",
                f'{CLICK_PATH}: {error}; expected {{"impression": "…", "document": "…"}}, the value of the answer\'s '
                f"header X-Bridge-Impression and the chosen document's _id",
            ) from error
        if self._impressions.clicked(click.impression, click.document):
            self._events.append(Click(time=now(), impression=click.impression, document=click.document))


def team_draft(
    own: Sequence[Key], bridge: Sequence[Key], *, seed: str, groups: Mapping[Key, Group] = MappingProxyType({})
) -> Iterator[tuple[Key, Side]]:
    """Every document of both rankings once, or one of each of the `groups`, with the side that picked it; the same for
    the same seed."""
    chance = random.Random(seed)
    sides: dict[Side, Iterator[Key]] = {"own": iter(own), "bridge": iter(bridge)}
    picked: set[Group] = set()
    while sides:
        turn: list[Side] = ["own", "bridge"]
        chance.shuffle(turn)
        for side in turn:
            if side not in sides:
                continue
            choice = next((key for key in sides[side] if groups.get(key, key) not in picked), None)
            if choice is None:
                del sides[side]
                continue
            picked.add(groups.get(choice, choice))
            yield choice, side
