from collections.abc import Sequence
from typing import Literal

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("bm25s", reason="training needs the train extra")

from bridge.adaptation.comparison import Difference, HeldOutQueries
from bridge.adaptation.index_texts import IndexedText
from bridge.evaluation.judged_queries import JudgedQueries
from ingest.stages.models import profile_for
from tests.ingest.toys import toy_models
from tests.toys import WORDS

N = 12
DOCUMENTS = [IndexedText(f"d{n}", [word], word, [f"{word} beginning", word]) for n, word in enumerate(WORDS[:N])]
QUERIES = JudgedQueries("people", {f"q{n}": f"ask{n}" for n in range(N)}, {f"q{n}": {f"d{n}": 1} for n in range(N)})
PROFILE = profile_for(toy_models(), ["text"])


class Knowing:
    """Knows which document answers the query of the same number, but for the first `n_wrong`."""

    dimension = N

    def __init__(self, n_wrong: int = 0) -> None:
        self._n_wrong = n_wrong

    def encode(self, texts: Sequence[str], role: Literal["query", "passage"] = "query") -> NDArray[np.float32]:
        embeddings = np.zeros((len(texts), N), dtype=np.float32)
        for row, text in enumerate(texts):
            number = int(text.removeprefix("ask")) if role == "query" else WORDS.index(text.split()[0])
            moved = role == "query" and number < self._n_wrong
            embeddings[row, (number + 1) % N if moved else number] = 1.0
        return embeddings


class Judge:
    """Prefers the passage of the query's own document, or of the next one where `wrong`."""

    def __init__(self, *, wrong: bool) -> None:
        self._shift = int(wrong)

    def score(self, query: str, passages: Sequence[str]) -> NDArray[np.float32]:
        wanted = WORDS[int(query.removeprefix("ask")) + self._shift]
        return np.array([float(wanted in passage) for passage in passages], dtype=np.float32)


@pytest.fixture
def ground() -> HeldOutQueries:
    return HeldOutQueries(QUERIES, DOCUMENTS, PROFILE)


def test_a_document_is_as_near_as_its_nearest_passage(ground: HeldOutQueries) -> None:
    nearest = ground.rank("vector", ground.embed(Knowing()))
    assert [hits[0].doc_id for hits in nearest.values()] == [f"d{n}" for n in range(N)]
    assert len({hit.doc_id for hit in nearest["q0"]}) == len(nearest["q0"]) == N


def test_an_encoder_that_finds_more_gains_at_both_stages(ground: HeldOutQueries) -> None:
    serving, adapted = ground.embed(Knowing(n_wrong=6)), ground.embed(Knowing())
    alone = ground.difference("vector", ground.rank("vector", serving), ground.rank("vector", adapted))
    assert (alone.adapted_mean, alone.difference > 0.1, alone.p_value < 0.1) == (1.0, True, True)
    fused = ground.difference("hybrid", ground.rank("hybrid", serving), ground.rank("hybrid", adapted))
    assert fused.difference > 0
    assert fused.helps()


def test_a_worse_one_does_not_help(ground: HeldOutQueries) -> None:
    before, after = (ground.rank("hybrid", ground.embed(Knowing(n_wrong))) for n_wrong in (0, 6))
    assert not ground.difference("hybrid", before, after).helps()


def test_a_cross_encoder_is_compared_on_the_same_ranking() -> None:
    profile = msgspec.structs.replace(PROFILE, rerank=msgspec.structs.replace(PROFILE.rerank, blend=0.0))
    ground = HeldOutQueries(QUERIES, DOCUMENTS, profile)
    vectors = ground.embed(Knowing())
    before, after = (ground.rank("rerank", vectors, Judge(wrong=wrong)) for wrong in (True, False))
    difference = ground.difference("rerank", before, after)
    assert difference.adapted_mean == 1.0 > difference.serving_mean
    assert difference.low > 0


@pytest.mark.parametrize(
    ("difference", "low", "helps"),
    [(0.03, 0.01, True), (0.03, -0.019, True), (0.03, -0.021, False), (0.005, 0.001, False), (-0.03, -0.05, False)],
    ids=["certainly better", "better, no harm", "harm cannot be excluded", "not worth it", "worse"],
)
def test_a_model_helps_that_gains_enough_and_passes_the_gate(difference: float, low: float, helps: bool) -> None:
    found = Difference("hybrid", 0.5, 0.5 + difference, difference, low, difference + 0.01, 0.05)
    assert found.helps() is helps
