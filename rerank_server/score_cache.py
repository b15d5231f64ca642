"""Caches the scores of pairs: users repeat queries, and turn pages of the same ranking."""

from collections.abc import Sequence
from hashlib import blake2b

from cachetools import LRUCache

from rerank_server.metrics import Metrics


class ScoreCache:
    """LRU cache of scores, shared by all callers: a score depends on model, query and passage only.

    Keys are digests, so it holds no text. Not for several threads.
    """

    def __init__(self, *, max_pairs: int, metrics: Metrics) -> None:
        """`max_pairs` 0 remembers nothing; a pair takes about 200 bytes."""
        self._scores: LRUCache[bytes, float] = LRUCache(max_pairs)
        self._metrics = metrics

    def known(self, model: str, query: str, passages: Sequence[str]) -> list[float | None]:
        """The cached score of each passage, input order; None for a miss."""
        scores = [self._scores.get(key) for key in _keys(model, query, passages)]
        hits = sum(score is not None for score in scores)
        self._metrics.cached.labels("hit").inc(hits)
        self._metrics.cached.labels("miss").inc(len(scores) - hits)
        return scores

    def remember(self, model: str, query: str, passages: Sequence[str], scores: Sequence[float]) -> None:
        """Keeps `scores`, those of `passages` in the same order."""
        if self._scores.maxsize > 0:
            self._scores.update(zip(_keys(model, query, passages), scores, strict=True))


def _keys(model: str, query: str, passages: Sequence[str]) -> list[bytes]:
    # Each part by its own digest: texts of any length joined to one key cannot be told apart from others.
    common = _digest(model) + _digest(query)
    return [_digest_bytes(common + _digest(passage)) for passage in passages]


def _digest(text: str) -> bytes:
    return _digest_bytes(text.encode("utf-8", "surrogatepass"))


def _digest_bytes(data: bytes) -> bytes:
    return blake2b(data, digest_size=16).digest()
