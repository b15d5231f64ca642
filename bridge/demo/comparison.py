"""What does the same search find past the bridge and through it? Sent by opensearch-py, as an application would."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from opensearchpy import OpenSearch
from rich.table import Table

from bridge.demo.collection import application_query
from bridge.errors import AnswerNotUnderstood

QUESTIONS = (
    "wait for several threads to finish",
    "measure how long my code takes",
    "turn a dictionary into json",
    "parallel for loop",
    "what day of the week is it",
    "throw dice",
    "send email with attachment",
    "TypeError: 'int' object is not iterable",
)
"""None of them is measured."""

DEPTH = 100
"""How many hits of plain BM25 are read to find a document's rank there."""

SHOWN_HITS = 3


@dataclass(frozen=True, slots=True)
class ExplainedHit:
    """A hit of the bridge: its rank in plain BM25 (None: not among the first `DEPTH`), its rank by leg, and the
    cross-encoder's score if it was read."""

    doc_id: str
    plain_rank: int | None
    leg_ranks: Mapping[str, int]
    rerank_score: float | None

    def contributions(self) -> str:
        """The ranks and the score, in one line."""
        parts = [f"BM25 {self.plain_rank or '–'}"]
        parts += [f"{leg} {rank}" for leg, rank in self.leg_ranks.items() if leg != "lexical"]
        if self.rerank_score is not None:
            parts.append(f"score {self.rerank_score:+.1f}")
        return " · ".join(parts)


@dataclass(frozen=True, slots=True)
class Comparison:
    """One question and both answers, best first."""

    question: str
    plain: Sequence[str]
    bridged: Sequence[ExplainedHit]


def compare(proxy: OpenSearch, index: str, question: str) -> Comparison:
    """Asks the cluster as it is (`x-bridge: off`), then the bridge (`x-bridge: explain`).

    Raises:
        AnswerNotUnderstood: the proxy let the search pass instead of serving it.
    """
    off = proxy.search(index=index, body=application_query(question, DEPTH), headers={"x-bridge": "off"})
    plain = [hit["_id"] for hit in off["hits"]["hits"]]
    answer = proxy.search(index=index, body=application_query(question), headers={"x-bridge": "explain"})
    if "_bridge" not in answer:
        raise AnswerNotUnderstood(f"the answer to {question!r} explains nothing: the proxy let the search pass")
    ranks = {doc_id: rank for rank, doc_id in enumerate(plain, start=1)}
    bridged = [
        ExplainedHit(
            hit["_id"],
            ranks.get(hit["_id"]),
            {leg: found["rank"] for leg, found in hit["_bridge"]["legs"].items()},
            hit["_bridge"].get("rerank_score"),
        )
        for hit in answer["hits"]["hits"]
    ]
    return Comparison(question, plain, bridged)


def comparisons_table(comparisons: Sequence[Comparison]) -> Table:
    """The first hits of plain BM25 and of the bridge, and their ranks by leg."""
    table = Table(title="The same search, past the bridge and through it")
    for heading in ("typed", "plain BM25", "through the bridge", "ranks by leg, cross-encoder's score"):
        table.add_column(heading, overflow="fold")
    for comparison in comparisons:
        for row in range(SHOWN_HITS):
            hit = comparison.bridged[row] if row < len(comparison.bridged) else None
            table.add_row(
                comparison.question if row == 0 else "",
                comparison.plain[row] if row < len(comparison.plain) else "–",
                hit.doc_id if hit else "–",
                hit.contributions() if hit else "",
            )
        table.add_section()
    return table
