"""Counts the queries that a stage won and lost, and shows the worst losses side by side."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from opensearchpy import OpenSearch

from bridge.evaluation.stages import StageResult
from bridge.text import enriched_text, field_texts

SHOWN_HITS = 3

_SHOWN_CHARS = 50


@dataclass(frozen=True, slots=True)
class Loss:
    """A query that got worse: its measure before and after, and the first doc_ids of both rankings."""

    query_id: str
    before: float
    after: float
    ranking_before: Sequence[str]
    ranking_after: Sequence[str]


def won_and_lost(before: StageResult, after: StageResult, measure: str) -> tuple[int, int]:
    """Numbers of queries whose measure rose, and of those whose measure fell."""
    differences = after.evaluation.values[measure] - before.evaluation.values[measure]
    return int((differences > 0).sum()), int((differences < 0).sum())


def worst_losses(before: StageResult, after: StageResult, measure: str, *, most: int = 10) -> list[Loss]:
    """The queries that lost most, worst first; ties in the order of the queries."""
    differences = after.evaluation.values[measure] - before.evaluation.values[measure]
    return [
        Loss(
            query_id,
            float(before.evaluation.values[measure][row]),
            float(after.evaluation.values[measure][row]),
            before.run.rankings[query_id][:SHOWN_HITS],
            after.run.rankings[query_id][:SHOWN_HITS],
        )
        for row in np.argsort(differences, kind="stable")[:most]
        if differences[row] < 0
        for query_id in [before.evaluation.query_ids[row]]
    ]


def marked(doc_ids: Sequence[str], grades: Mapping[str, int], titles: Mapping[str, str]) -> str:
    """The hits as lines, relevant ones with a mark: `+ d7 Beginning of its text`."""
    return "\n".join(
        f"{'+' if grades.get(doc_id, 0) > 0 else '·'} {doc_id} {titles.get(doc_id, '')}".rstrip() for doc_id in doc_ids
    )


def document_titles(client: OpenSearch, index: str, doc_ids: Sequence[str], fields: Sequence[str]) -> dict[str, str]:
    """The first words of documents, by doc_id; without documents that are gone or need a routing value."""
    if not doc_ids:
        return {}
    answer = client.mget(index=index, body={"ids": list(doc_ids)}, params={"_source_includes": ",".join(fields)})
    titles = {}
    for document in answer["docs"]:
        if document.get("found"):
            text = " ".join(enriched_text(field_texts(document["_source"], fields)).split())
            titles[document["_id"]] = text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}…"
    return titles
