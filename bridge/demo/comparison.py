"""Sends the same search twice, past the bridge and through it, with opensearch-py as an application would."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from opensearchpy import OpenSearch

from bridge.demo.collection import application_query
from bridge.errors import AnswerNotUnderstood

QUESTIONS = (
    "run a function once a day",
    "keep only the newest hundred entries",
    "which exception happened and where",
    "make a file disappear after the test",
    "wait until all workers have reached the same point",
    "show what was added and removed between two lists of lines",
    "strptime format",
    "who called this function",
    "stop a program that takes too long",
    "attach a picture to a mail",
    "throw dice",
    "how to speak to a web server without a library",
)
"""None of them is measured."""

DEPTH = 100
"""How deep plain BM25 is read, to tell where it had a document."""


@dataclass(frozen=True, slots=True)
class ExplainedHit:
    """A document that the bridge found: its rank in plain BM25 (None: not among the first `DEPTH`), its
    rank by leg, and the cross-encoder's score where it was read."""

    doc_id: str
    plain_rank: int | None
    leg_ranks: Mapping[str, int]
    rerank_score: float | None

    def contributions(self) -> str:
        """One line: what each leg and the cross-encoder made of it."""
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
        AnswerNotUnderstood: the bridge let the search pass instead of serving it.
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
            {leg: said["rank"] for leg, said in hit["_bridge"]["legs"].items()},
            hit["_bridge"].get("rerank_score"),
        )
        for hit in answer["hits"]["hits"]
    ]
    return Comparison(question, plain, bridged)
