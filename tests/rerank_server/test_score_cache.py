"""Scores that are remembered."""

from rerank_server.metrics import Metrics
from rerank_server.score_cache import ScoreCache


def _cache(max_pairs: int) -> ScoreCache:
    return ScoreCache(max_pairs=max_pairs, metrics=Metrics())


def test_a_score_belongs_to_model_query_and_passage() -> None:
    cache = _cache(10)
    cache.remember("model@1", "query", ["a", "b"], [1.0, 2.0])
    assert cache.known("model@1", "query", ["b", "c", "a"]) == [2.0, None, 1.0]
    assert cache.known("model@2", "query", ["a"]) == [None]
    assert cache.known("model@1", "query2", ["a"]) == [None]
    assert cache.known("model@1", "quer", ["ya"]) == [None]


def test_the_pair_that_was_not_asked_for_longest_is_forgotten() -> None:
    cache = _cache(2)
    cache.remember("m", "q", ["a", "b"], [1.0, 2.0])
    cache.known("m", "q", ["a"])
    cache.remember("m", "q", ["c"], [3.0])
    assert cache.known("m", "q", ["a", "b", "c"]) == [1.0, None, 3.0]


def test_a_cache_of_nothing_remembers_nothing() -> None:
    cache = _cache(0)
    cache.remember("m", "q", ["a"], [1.0])
    assert cache.known("m", "q", ["a"]) == [None]


def test_texts_without_utf8_form_are_told_apart() -> None:
    cache = _cache(10)
    cache.remember("m", "q", ["\ud800"], [1.0])
    assert cache.known("m", "q", ["\ud800", "\ud801", "?"]) == [1.0, None, None]
