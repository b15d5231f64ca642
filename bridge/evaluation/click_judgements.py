"""Judgements from clicks: clicks over expected clicks (Zhang and Jones 2007, "Comparing click logs and editorial labels
for training query rewriting").

Users click high ranks whatever document stands there. So a document's clicks for a query are divided by the clicks that
its ranks get on average over the whole log. A document is relevant if the quotient is at least 1.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bridge.errors import UsageError
from bridge.evaluation.judged_queries import JudgedQueries
from bridge.proxy.experiments.event_log import Click, Impression
from bridge.proxy.experiments.event_report import read_events

FEWEST_PAGES = 3
"""A query with fewer pages says more about its few readers than about its documents."""

_ROUNDING = 1e-9

REMARK = (
    "clicks tell of documents that were shown: both rankings of the log's pages were, alike; documents that only other "
    "settings find count as not relevant"
)


@dataclass(frozen=True, slots=True)
class ShownPage:
    """A page that a reader saw: doc_ids in order, the first at rank `first_rank`, and the clicked ones."""

    query: str
    first_rank: int
    shown: Sequence[str]
    clicked: frozenset[str]


def judgements_of_clicks(source: str, pages: Iterable[ShownPage]) -> JudgedQueries:
    """Judges the queries with at least `FEWEST_PAGES` pages and at least one relevant document. Shown documents have
    grade 1 or 0.

    Raises:
        UsageError: there is no such query.
    """
    pages = list(pages)
    n_pages = Counter(page.query for page in pages if page.first_rank == 1)
    shown, clicked = Counter[int](), Counter[int]()
    for page in pages:
        for rank, doc_id in enumerate(page.shown, start=page.first_rank):
            shown[rank] += 1
            clicked[rank] += doc_id in page.clicked
    clicks, expected = Counter[tuple[str, str]](), defaultdict[tuple[str, str], float](float)
    for page in pages:
        for rank, doc_id in enumerate(page.shown, start=page.first_rank):
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
    """Judgements from the proxy's event log.

    Raises:
        UsageError: the file does not exist, or holds no page with its query; or as `judgements_of_clicks`.
    """
    if not file.is_file():
        raise UsageError(f"click log {file} does not exist or is not a file")
    events = list(read_events(file))
    clicked: dict[str, set[str]] = defaultdict(set)
    for event in events:
        if isinstance(event, Click):
            clicked[event.impression].add(event.document)
    pages = [
        ShownPage(event.query, event.first_rank, [doc_id for _, doc_id in event.shown], frozenset(clicked[event.id]))
        for event in events
        if isinstance(event, Impression) and event.query is not None
    ]
    if not pages:
        raise UsageError(f"click log {file} holds no page with its query: set proxy.event_log_queries in the proxy")
    return judgements_of_clicks(file.name, pages)
