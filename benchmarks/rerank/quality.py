"""What rerankers are worth: nDCG@10 of each over the same candidates (Järvelin and Kekäläinen 2002,
"Cumulated gain-based evaluation of IR techniques": https://doi.org/10.1145/582415.582418)."""

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import msgspec
import numpy as np

from benchmarks.rerank.passages import sections
from bridge.errors import UsageError
from bridge.models.cross_encoder import CrossEncoder
from bridge.models.encoder import Encoder
from bridge.search.cascade import merge_scores, select_for_large_model
from bridge.search.fusion import blended

Judged = tuple[list[str], dict[str, dict[int, int]]]
"""Passages, and per question the grade of each passage that is relevant, by its place."""

Score = Callable[[str, Sequence[str]], Sequence[float]]
"""Question, passages → their scores, in their order."""

_CUT = 10

PRIOR_WEIGHT = 0.5
"""The search's share in what the large model reads, as in `prior_weight` of a request."""


@dataclass(frozen=True, slots=True)
class Question:
    """A judged question with its candidates: their places among all passages, their texts, and their cosines.
    `grades`: of the relevant passages, by place."""

    text: str
    grades: Mapping[int, int]
    places: Sequence[int]
    passages: Sequence[str]
    cosines: Sequence[float]


class Worth(msgspec.Struct, frozen=True):
    """Mean nDCG@10 over the same candidates: of the large model alone, of the cascade and of the peers' model; None if
    there is no such model."""

    ours: float
    cascade: float | None = None
    peer: float | None = None


def questions(judged: Judged, encoder: Encoder, *, n_queries: int, n_candidates: int) -> list[Question]:
    """The first `n_queries` questions by their letters, each with its nearest passages."""
    texts, graded = judged
    asked = sorted(graded)[:n_queries]
    cosines = encoder.encode(asked) @ encoder.encode(texts, "passage").T
    found = []
    for text, row in zip(asked, cosines, strict=True):
        places = np.argsort(-row)[:n_candidates].tolist()
        found.append(Question(text, graded[text], places, [texts[place] for place in places], row[places].tolist()))
    return found


def worth(
    asked: Sequence[Question], large: CrossEncoder, small: CrossEncoder | None, peer: Score | None, *, depth: int
) -> Worth:
    """What each model makes of the same candidates; the cascade's large model reads `depth` of them."""
    by_large = [large.score(each.text, each.passages).tolist() for each in asked]
    by_peer = [peer(each.text, each.passages) for each in asked] if peer else []
    both = zip(asked, by_large, strict=True)
    by_both = [_cascaded(each, small, scores, depth) for each, scores in both] if small else []
    return Worth(
        ours=_mean_ndcg(asked, by_large),
        cascade=_mean_ndcg(asked, by_both) if by_both else None,
        peer=_mean_ndcg(asked, by_peer) if by_peer else None,
    )


def _cascaded(question: Question, small: CrossEncoder, by_large: Sequence[float], depth: int) -> list[float]:
    """What the large model reads is chosen by the small one and the search that found it, as the proxy asks for it."""
    by_small = small.score(question.text, question.passages).tolist()
    preferences = blended(by_small, question.cosines, PRIOR_WEIGHT)
    chosen = select_for_large_model(by_small, depth=depth, preferences=preferences)
    return merge_scores(by_small, {place: by_large[place] for place in chosen})


def _mean_ndcg(asked: Sequence[Question], scores: Sequence[Sequence[float]]) -> float:
    return fmean(ndcg(each, question.places, question.grades) for question, each in zip(asked, scores, strict=True))


def ndcg(scores: Sequence[float], candidates: Sequence[int], grades: Mapping[int, int]) -> float:
    """nDCG@10 of the candidates in the order of their scores; 0 where nothing is relevant."""
    ranked = [candidates[place] for place in sorted(range(len(scores)), key=lambda place: -scores[place])][:_CUT]
    ideal = sorted(grades.values(), reverse=True)[:_CUT]
    return _gain([grades.get(passage, 0) for passage in ranked]) / (_gain(ideal) or 1.0)


def judged_sections() -> Judged:
    """The Python language reference: each topic's heading asks for the topic's passages."""
    texts, answers = sections()
    return texts, {heading: dict.fromkeys(places, 1) for heading, places in answers.items()}


def judged_collection(folder: Path) -> Judged:
    """A test collection in the layout of BEIR, its test judgements or the first others.

    Raises:
        UsageError: a file is missing.
    """
    judgements = [folder / "qrels" / "test.tsv", *sorted((folder / "qrels").glob("*.tsv"))]
    found = next((file for file in judgements if file.is_file()), None)
    if found is None or not (folder / "corpus.jsonl").is_file() or not (folder / "queries.jsonl").is_file():
        raise UsageError(f"{folder} lacks corpus.jsonl, queries.jsonl or qrels/*.tsv: give a folder laid out as BEIR's")
    documents = _json_lines(folder / "corpus.jsonl")
    queries = {str(query["_id"]): query["text"] for query in _json_lines(folder / "queries.jsonl")}
    places = {str(document["_id"]): place for place, document in enumerate(documents)}
    graded: dict[str, dict[int, int]] = {}
    with found.open(encoding="utf-8", newline="") as lines:
        for query_id, doc_id, grade in list(csv.reader(lines, delimiter="\t"))[1:]:
            if int(grade) > 0 and query_id in queries and doc_id in places:
                graded.setdefault(queries[query_id], {})[places[doc_id]] = int(grade)
    return [f"{document.get('title', '')} {document['text']}".strip() for document in documents], graded


def _json_lines(file: Path) -> list[dict[str, Any]]:
    with file.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def _gain(grades: Sequence[int]) -> float:
    return float(sum(grade / np.log2(rank + 1) for rank, grade in enumerate(grades, start=1)))
