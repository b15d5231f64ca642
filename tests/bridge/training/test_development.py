"""What a reranker in training is watched on."""

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("bm25s", reason="training needs the train extra")
pytest.importorskip("ir_measures", reason="training needs the train extra")

from bridge.training.data import JudgedCollection
from bridge.training.development import development_set, ranking_figures

WORDS = ("wing", "flow", "heat", "plate")
COLLECTION = JudgedCollection(
    name="toy",
    documents={f"d{number}": ("", f"{word} {word} text") for number, word in enumerate(WORDS)},
    queries={f"q{number}": word for number, word in enumerate(WORDS)},
    judgements={f"q{number}": {f"d{number}": 1} for number in range(len(WORDS))},
)


def embed(texts: Sequence[str]) -> NDArray[np.float32]:
    counts = np.array([[text.split().count(word) for word in WORDS] for text in texts], dtype=np.float32)
    unit: NDArray[np.float32] = counts / np.maximum(np.linalg.norm(counts, axis=1, keepdims=True), 1e-9)
    return unit


def test_the_hybrids_candidates_are_the_best_of_words_and_vectors() -> None:
    development = development_set(COLLECTION, embed, n_queries=2, depth=3)
    assert [judged.query_id for judged in development.queries] == ["q0", "q1"]
    for judged in development.queries:
        assert len(judged.doc_ids) == len(judged.texts) == len(judged.lexical_ranks) == 3
        assert judged.doc_ids[0] == judged.query_id.replace("q", "d")
        assert judged.lexical_ranks[0] == 1


def test_a_scorer_that_inverts_the_ranking_shows_in_its_own_figure_and_not_in_the_hybrids() -> None:
    development = development_set(COLLECTION, embed, n_queries=4, depth=3)

    def inverted(query: str, passages: Sequence[str]) -> NDArray[np.float32]:
        return np.array([-float(passage.split().count(query)) for passage in passages], dtype=np.float32)

    figures = ranking_figures([development], inverted, n_queries=4, depth=3)
    assert figures["toy/first"] == 1.0
    assert figures["toy/rerank"] == pytest.approx(0.5)
    assert figures.keys() == {"toy/first", "toy/rerank", "toy/blend"}
