"""What the cascade costs in quality: nDCG@10 of both ways over the same candidates (Järvelin and Kekäläinen 2002,
"Cumulated gain-based evaluation of IR techniques": https://doi.org/10.1145/582415.582418)."""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.rerank.passages import sections
from bridge.errors import UsageError
from bridge.models.cross_encoder import CrossEncoder
from bridge.models.encoder import Encoder
from bridge.search.cascade import merge_scores, select_for_large_model
from bridge.search.fusion import blended

Judged = tuple[list[str], dict[str, dict[int, int]]]
"""Passages, and per question the grade of each passage that is relevant, by its place."""

_CUT = 10

PRIOR_WEIGHT = 0.5
"""The search's share in what the large model reads, as in `prior_weight` of a request."""


def kept_by_cascade(
    small: CrossEncoder,
    large: CrossEncoder,
    encoder: Encoder,
    judged: Judged,
    *,
    n_queries: int,
    n_candidates: int,
    depth: int,
) -> float:
    """nDCG@10 of the cascade divided by that of `large` alone, both over each question's nearest passages; what the
    cascade's large model reads is chosen by the small one and the search that found them, as the proxy asks for it."""
    texts, questions = judged
    asked = sorted(questions)[:n_queries]
    nearest = encoder.encode(asked) @ encoder.encode(texts, "passage").T
    gains: list[tuple[float, float]] = []
    for row, query in enumerate(asked):
        candidates = np.argsort(-nearest[row])[:n_candidates].tolist()
        read = [texts[candidate] for candidate in candidates]
        by_large, by_small = large.score(query, read).tolist(), small.score(query, read).tolist()
        preferences = blended(by_small, nearest[row, candidates].tolist(), PRIOR_WEIGHT)
        chosen = select_for_large_model(by_small, depth=depth, preferences=preferences)
        cascaded = merge_scores(by_small, {place: by_large[place] for place in chosen})
        grades = questions[query]
        gains.append((ndcg(cascaded, candidates, grades), ndcg(by_large, candidates, grades)))
    both = np.mean(gains, axis=0)
    return float(both[0] / both[1]) if both[1] else float("nan")


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
