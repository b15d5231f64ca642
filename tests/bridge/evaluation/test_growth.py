"""Synthetic documents: as large as real ones, with vectors that a graph can hold."""

import numpy as np
import pytest

from bridge.evaluation.growth import crossed
from bridge.profile import IndexProfile, ModelReference

PROFILE = IndexProfile(text_fields=["text"], encoder=ModelReference("e", "0" * 12), dimension=2)

FIRST = {"title": "A", "text": "one two three four", "_neural": {"predicted_queries": ["a", "b", "c"], "stamp": "s"}}
SECOND = {"title": "B", "text": "five six seven eight", "_neural": {"predicted_queries": ["d"], "stamp": "t"}}


def test_text_and_predicted_queries_are_of_both() -> None:
    document = crossed(FIRST, SECOND, PROFILE)
    assert document["title"] == "A"
    assert document["text"] == "one two seven eight"
    assert document["_neural"]["predicted_queries"] == ["a", "b", "d"]
    assert FIRST["_neural"]["predicted_queries"] == ["a", "b", "c"]  # type: ignore[index]


@pytest.mark.parametrize(
    ("one", "other", "between"),
    [([1.0, 0.0], [0.0, 1.0], [0.707107, 0.707107]), ([1.0, 0.0], [-1.0, 0.0], [1.0, 0.0])],
)
def test_vectors_are_of_unit_length_and_between(one: list[float], other: list[float], between: list[float]) -> None:
    first = {"text": "x", "_neural": {"embedding": one}}
    second = {"text": "y", "_neural": {"embedding": other}}
    assert crossed(first, second, PROFILE)["_neural"]["embedding"] == pytest.approx(between)

    passages = [{"embedding": one, "start": 0, "end": 5}, {"embedding": one, "start": 5, "end": 9}]
    longer = {"text": "x", "_neural": {"passages": passages}}
    shorter = {"text": "y", "_neural": {"passages": [{"embedding": other, "start": 0, "end": 3}]}}
    [passage] = crossed(longer, shorter, PROFILE)["_neural"]["passages"]
    assert passage["embedding"] == pytest.approx(between)
    assert np.linalg.norm(passage["embedding"]) == pytest.approx(1.0, abs=1e-5)


def test_documents_without_text_are_crossed_too() -> None:
    assert crossed({"_neural": {"stamp": "s"}}, {}, PROFILE) == {"text": "", "_neural": {"stamp": "s"}}
