from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from bridge.adaptation.index_texts import IndexedText
from bridge.adaptation.training_pairs import (
    judged_pairs,
    predicted_pairs,
    title_pairs,
    without_queries,
    write_pairs,
)
from bridge.evaluation.judged_queries import JudgedQueries
from bridge.training.data import read_pairs


class Echo:
    """Predicts of each passage its words, the first one first."""

    def generate(self, passages: Sequence[str], *, n_queries: int, max_new_tokens: int, seed: int) -> list[list[str]]:
        return [passage.split()[:n_queries] for passage in passages]


class Lengths:
    """Prefers long passages."""

    def score(self, query: str, passages: Sequence[str]) -> NDArray[np.float32]:
        return np.array([len(passage) for passage in passages], dtype=np.float32)


def text(doc_id: str, *fields: str) -> IndexedText:
    whole = " ".join(fields)
    return IndexedText(doc_id, fields, whole, [whole])


def short_ones_only(passages: Sequence[str], queries: Sequence[Sequence[str]]) -> list[list[str]]:
    return [[query for query in each if len(query) < 6] for each in queries]


def test_predicted_queries_that_are_not_believed_teach_nothing() -> None:
    told: list[int] = []
    documents = [text(str(n), f"word{n} incredible") for n in range(20)]
    pairs = predicted_pairs(documents, Echo(), short_ones_only, n_queries=2, source="own", on_passages=told.append)
    assert [pair.query for pair in pairs] == [f"word{n}" for n in range(10)]
    assert {(pair.passage, pair.source) for pair in pairs[:1]} == {("word0 incredible", "own")}
    assert told[-1] == 20


@pytest.mark.parametrize(
    ("fields", "queries"),
    [
        (("how a wing lifts", "By its shape."), ["how a wing lifts"]),
        (("wing", "By its shape."), []),
        (("how a wing lifts",), []),
        (("how a wing lifts", ""), []),
        ((" ".join(["word"] * 21), "By its shape."), []),
    ],
    ids=["a title", "too short to name anything", "no other field", "nothing beside it", "prose"],
)
def test_a_title_asks_for_the_other_fields(fields: tuple[str, ...], queries: list[str]) -> None:
    pairs = title_pairs([text("d", *fields)], source="own")
    assert [pair.query for pair in pairs] == queries
    assert all(pair.passage == "By its shape." for pair in pairs)


def test_what_is_judged_relevant_is_learnt_by_its_best_passage() -> None:
    judged = JudgedQueries("clicks", {"q": "wing"}, {"q": {"long": 2, "gone": 1, "no": 0}})
    documents = {"long": IndexedText("long", ["a"], "a", ["short", "the longer one"]), "no": text("no", "x")}
    pairs = judged_pairs(judged, documents, Lengths(), source="own")
    assert [(pair.query, pair.passage) for pair in pairs] == [("wing", "the longer one")]


def test_no_query_is_learnt_that_is_measured_with(tmp_path: Path) -> None:
    held_out = JudgedQueries("own", {"q": "How a wing lifts "}, {"q": {"d": 1}})
    pairs = title_pairs(
        [text("d", title, "By its shape.") for title in ("how a WING lifts", "why it stalls")], source="s"
    )
    file = tmp_path / "index-x.jsonl"
    write_pairs(without_queries(pairs, held_out), file)
    assert [(pair.query, pair.source, pair.relevant) for pair in read_pairs(tmp_path)] == [
        ("why it stalls", "index-x", True)
    ]
