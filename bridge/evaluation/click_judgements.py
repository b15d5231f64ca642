"""Judgements from clicks: clicks over expected clicks (Zhang and Jones 2007, "Comparing click logs and editorial labels
for training query rewriting").

Users click high ranks whatever document stands there. So a document's clicks for a query are divided by the clicks that
its ranks get on average over the whole log. A document is relevant if the quotient is at least 1.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from pathlib import Path

import msgspec
from opensearchpy import OpenSearch, helpers

from bridge.errors import UsageError
from bridge.evaluation.judged_queries import JudgedQueries
from bridge.proxy.experiments import ubi
from bridge.proxy.experiments.event_log import Click, Event, Impression
from bridge.proxy.experiments.event_report import read_events

FEWEST_PAGES = 3
"""A query with fewer pages says more about its few readers than about its documents."""

_ROUNDING = 1e-9
_EVENTS_PER_REQUEST = 1_000

REMARK = (
    "clicks tell of documents that were shown: both rankings of the log's pages were, alike; documents that only other "
    "settings find count as not relevant"
)


@dataclass(frozen=True, slots=True)
class ShownPage:
    """A page that a reader saw: the ranks of its documents, from 1 on, and the clicked ones."""

    query: str
    ranks: Mapping[str, int]
    clicked: Set[str]

    @property
    def is_first(self) -> bool:
        return 1 in self.ranks.values()


def judgements_of_clicks(source: str, pages: Iterable[ShownPage]) -> JudgedQueries:
    """Judges the queries with at least `FEWEST_PAGES` pages and at least one relevant document. Shown documents have
    grade 1 or 0.

    Raises:
        UsageError: there is no such query.
    """
    pages = list(pages)
    n_pages = Counter(page.query for page in pages if page.is_first)
    shown, clicked = Counter[int](), Counter[int]()
    for page in pages:
        for doc_id, rank in page.ranks.items():
            shown[rank] += 1
            clicked[rank] += doc_id in page.clicked
    clicks, expected = Counter[tuple[str, str]](), defaultdict[tuple[str, str], float](float)
    for page in pages:
        for doc_id, rank in page.ranks.items():
            clicks[page.query, doc_id] += doc_id in page.clicked
            expected[page.query, doc_id] += clicked[rank] / shown[rank]
    qrels: dict[str, dict[str, int]] = {}
    for (query, doc_id), n_clicks in clicks.items():
        if n_pages[query] >= FEWEST_PAGES:
            as_many = n_clicks >= expected[query, doc_id] - _ROUNDING
            qrels.setdefault(query, {})[doc_id] = int(n_clicks > 0 and as_many)
    judged = {query: grades for query, grades in qrels.items() if any(grades.values())}
    if not judged:
        raise UsageError(
            f"{source}: none of its {len(n_pages):,} queries has {FEWEST_PAGES} pages and a document that was clicked "
            f"as often as its ranks are on average: collect more clicks (POST /_bridge/click)"
        )
    return JudgedQueries(
        f"{source}, {sum(clicked.values()):,} clicks on {len(pages):,} pages",
        {query: query for query in judged},
        judged,
        remarks=[REMARK],
    )


def read_click_log(file: Path) -> JudgedQueries:
    """Judgements from the proxy's event log, or from a file in UBI's form.

    Raises:
        UsageError: the file does not exist, or holds no page with its query; or as `judgements_of_clicks`.
    """
    if not file.is_file():
        raise UsageError(f"click log {file} does not exist or is not a file")
    pages = pages_of_ubi(ubi.read_ubi(file)) if ubi.is_ubi(file) else _logged_pages(read_events(file))
    if not pages:
        raise UsageError(f"click log {file} holds no page with its query: set proxy.event_log_queries in the proxy")
    return judgements_of_clicks(file.name, pages)


def read_clicks_of_cluster(client: OpenSearch) -> JudgedQueries:
    """Judgements from the indices `ubi_queries` and `ubi_events` of a cluster, or from the one that is there.

    Raises:
        UsageError: they hold no page with its query, or what is not UBI's; or as `judgements_of_clicks`.
    """
    pages = pages_of_ubi(_records(client))
    if not pages:
        raise UsageError(
            f"the cluster's indices {ubi.QUERIES} and {ubi.EVENTS} hold no page with its words (user_query): load "
            f"them, or name a file with --clicks"
        )
    return judgements_of_clicks(f"{ubi.QUERIES} and {ubi.EVENTS}", pages)


def _records(client: OpenSearch) -> Iterator[ubi.Record]:
    kinds: tuple[tuple[str, type[ubi.Record]], ...] = ((ubi.QUERIES, ubi.Query), (ubi.EVENTS, ubi.Behaviour))
    for index, kind in kinds:
        if not client.indices.exists(index=index):
            continue
        for hit in helpers.scan(client, index=index, size=_EVENTS_PER_REQUEST):
            try:
                yield msgspec.convert(hit["_source"], kind)
            except msgspec.ValidationError as error:
                if kind is ubi.Query and "query_id" not in hit["_source"]:
                    continue  # UBI allows that, and no event can belong to it
                raise UsageError(f"{index}: document {hit['_id']} is not as UBI has it ({error})") from error


def pages_of_ubi(records: Iterable[ubi.Record]) -> list[ShownPage]:
    """The pages with words. What they showed is what the impressions say, or, without any, the query's hits."""
    words: dict[str, str] = {}
    hits: dict[str, dict[str, int]] = {}
    seen: defaultdict[str, dict[str, int]] = defaultdict(dict)
    clicked: defaultdict[str, set[str]] = defaultdict(set)
    for record in records:
        if record.query_id is not None and record.user_query:
            words.setdefault(record.query_id, record.user_query)
        if isinstance(record, ubi.Query):
            shown = map(str, record.query_response_hit_ids or ())
            hits[record.query_id] = {doc_id: rank for rank, doc_id in enumerate(shown, start=1)}
        elif (chosen := ubi.clicked(record)) is not None:
            clicked[chosen[0]].add(chosen[1])
        elif (place := ubi.impression(record)) is not None:
            seen[place[0]][place[1]] = place[2]
    first = min((rank for ranks in seen.values() for rank in ranks.values()), default=1)
    for ranks in seen.values() if first == 0 else ():  # some collectors count so
        ranks.update({doc_id: rank + 1 for doc_id, rank in ranks.items()})
    shown_by_query = hits | seen
    return [
        ShownPage(text, shown_by_query[query_id], clicked[query_id])
        for query_id, text in words.items()
        if shown_by_query.get(query_id)
    ]


def _logged_pages(events: Iterable[Event]) -> list[ShownPage]:
    clicked: defaultdict[str, set[str]] = defaultdict(set)
    pages: list[Impression] = []
    for event in events:
        if isinstance(event, Click):
            clicked[event.impression].add(event.document)
        elif isinstance(event, Impression):
            pages.append(event)
    return [
        ShownPage(
            page.query,
            {doc_id: rank for rank, (_, doc_id) in enumerate(page.shown, start=page.first_rank)},
            clicked[page.id],
        )
        for page in pages
        if page.query is not None
    ]
