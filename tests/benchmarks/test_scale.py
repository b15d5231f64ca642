"""A grown collection has its own documents first, and says with which power its figures grow."""

import json
from pathlib import Path

import click
import pytest

from benchmarks.scale import Figures, Fill, _numbers, documents, exponents
from bridge.evaluation.load import LoadResult


def test_real_documents_come_first_and_synthetic_ones_are_made_of_two(tmp_path: Path) -> None:
    corpus = tmp_path / "corpus.jsonl"
    real = [{"_id": "x", "title": "one", "text": "a b c d"}, {"_id": "y", "title": "two", "text": "e f g h"}]
    corpus.write_text("".join(json.dumps(each) + "\n" for each in real))

    made = list(documents(corpus, 20))

    assert [(each["title"], each["text"]) for each in made[:2]] == [("one", "a b c d"), ("two", "e f g h")]
    assert len({each["_id"] for each in made}) == 20
    assert {each["text"] for each in made[2:]} <= {"a b c d", "a b g h", "e f c d", "e f g h"}
    assert made == list(documents(corpus, 20))
    assert [each["_id"] for each in documents(corpus, 1)] == ["real-0"]


def figures(size: int, *, seconds: float, p50_ms: float) -> Figures:
    load = LoadResult("hybrid", 1, 10, 0, 0, 1.0, p50_ms, p50_ms, p50_ms)
    return Figures(size, 0, Fill(seconds, 0.0), 100.0, 0.0, 1, 50.0, 100.0, [load])


def test_powers_compare_the_smallest_size_with_the_largest() -> None:
    found = [figures(100, seconds=1.0, p50_ms=10.0), figures(10_000, seconds=100.0, p50_ms=100.0)]
    assert exponents(found) == {"fill time": 1.0, "bytes": 1.0, "heap": 0.0, "hybrid, 1 clients, p50": 0.5}
    assert exponents(found[:1]) == {}


@pytest.mark.parametrize("text", ["", "ten", "0,10", "10,"])
def test_sizes_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(click.BadParameter, match="expected"):
        _numbers(text)
