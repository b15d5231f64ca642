"""A rerank request → a score per passage, from the cache, one model, or a cascade of two."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b

from cachetools import LRUCache

from bridge.models.cross_encoder import CrossEncoder
from bridge.models.tokenization import TokenArrays
from bridge.search import cascade
from bridge.search.fusion import blended
from bridge.settings import SidecarSettings
from rerank_server.batching import WorkQueue
from rerank_server.errors import NotServed
from rerank_server.long_documents import best_windows, refuse_long_texts, windows
from rerank_server.messages import RerankRequest, Scored, checked_texts
from rerank_server.metrics import Metrics
from rerank_server.models import Models

TOKENISED_AT_ONCE, SPLIT_AT_ONCE = 64, 8
"""Passages, and long documents, of one request before another request has its turn: a few milliseconds."""


class ScoreCache:
    """LRU cache of scores, shared by all callers: a score depends on model, query and passage only.

    Users repeat queries, and turn pages of the same ranking. Keys are digests, so it holds no text.
    Not for several threads.
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


@dataclass(slots=True)
class _Progress:
    """One request in progress: `texts` are its windows, `n_windows` of each document one after the other."""

    query: str
    texts: Sequence[str]
    n_windows: Sequence[int]
    deadline: float
    tokens: int = 0


class Scorer:
    """Scores passages with the models of a sidecar, through its queue."""

    def __init__(self, settings: SidecarSettings, queue: WorkQueue, cache: ScoreCache) -> None:
        """`queue` must run while requests are scored."""
        self._settings = settings
        self._queue = queue
        self._cache = cache

    async def scored(self, request: RerankRequest, models: Models, *, deadline: float) -> Scored:
        """Scores the request's passages; `deadline` in the event loop's time.

        Raises:
            RequestRefused: too many passages, one that is too long and must not be cut, a full queue, no time left, or
                no model for a cascade.
            ModelError: a model failed.
        """
        name = "texts" if request.texts is not None else "documents"
        passages = checked_texts(request.passages, field=name, most=self._settings.max_documents)
        small, model = _small(request, models), models.reranker(request.model)
        if not request.truncate:
            await self._refuse_long_texts(model, request, passages, field=name)
        split = await self._windows(model, request, passages)
        texts = [text for each in split for text in each]
        progress = _Progress(request.query, texts, [len(each) for each in split], deadline)
        if small is None:
            scores = await self._best_of_windows(model, progress)
        else:
            scores = await self._cascaded(small, model, request, progress)
        return Scored(model.identity, scores, progress.tokens)

    async def _refuse_long_texts(
        self, model: CrossEncoder, request: RerankRequest, passages: Sequence[str], *, field: str
    ) -> None:
        await self._queue.prepared(
            partial(
                refuse_long_texts,
                model.tokenizer,
                request.query,
                passages,
                max_pair_tokens=self._settings.max_pair_tokens,
                max_tokens_per_doc=request.max_tokens_per_doc,
                field=field,
            )
        )

    async def _windows(self, model: CrossEncoder, request: RerankRequest, passages: Sequence[str]) -> list[list[str]]:
        if request.max_tokens_per_doc is None:
            return [[passage] for passage in passages]
        split: list[list[str]] = []
        for start in range(0, len(passages), SPLIT_AT_ONCE):
            split += await self._queue.prepared(
                partial(
                    windows,
                    model.tokenizer,
                    request.query,
                    passages[start : start + SPLIT_AT_ONCE],
                    max_pair_tokens=self._settings.max_pair_tokens,
                    max_tokens_per_doc=request.max_tokens_per_doc,
                )
            )
        return split

    async def _best_of_windows(self, model: CrossEncoder, progress: _Progress) -> list[float]:
        known = self._cache.known(model.identity, progress.query, progress.texts)
        with self._queue.admitted(known.count(None)):
            scores = await self._completed(model, progress, progress.texts, known)
        return [scores[place] for place in best_windows(progress.n_windows, scores)]

    async def _cascaded(
        self, small: CrossEncoder, large: CrossEncoder, request: RerankRequest, progress: _Progress
    ) -> list[float]:
        """The large model reads of each document only the window that the small one finds best (Hofstätter et al.
        2021, "Intra-document cascading": https://arxiv.org/abs/2105.09816)."""
        depth = request.cascade_depth or len(progress.n_windows)
        known = self._cache.known(small.identity, progress.query, progress.texts)
        # Room for both stages at once: a refusal between them would waste the first one.
        with self._queue.admitted(max(known.count(None), min(depth, len(progress.n_windows)))):
            by_window = await self._completed(small, progress, progress.texts, known)
            best = best_windows(progress.n_windows, by_window)
            first = [by_window[place] for place in best]
            prior = request.prior_scores
            preferences = None if prior is None else blended(first, prior, request.prior_weight)
            chosen = cascade.select_for_large_model(
                first, depth=depth, preferences=preferences, top_n=request.n_best, margin=request.cascade_margin
            )
            texts = [progress.texts[best[document]] for document in chosen]
            again = self._cache.known(large.identity, progress.query, texts)
            second = await self._completed(large, progress, texts, again)
        return cascade.merge_scores(first, dict(zip(chosen, second, strict=True)))

    async def _completed(
        self, model: CrossEncoder, progress: _Progress, texts: Sequence[str], known: Sequence[float | None]
    ) -> list[float]:
        """The cached scores of `texts` in `known`, and computed ones for the rest."""
        missing = [text for text, score in zip(texts, known, strict=True) if score is None]
        pairs: list[TokenArrays] = []
        for start in range(0, len(missing), TOKENISED_AT_ONCE):
            some = missing[start : start + TOKENISED_AT_ONCE]
            pairs += await self._queue.prepared(
                partial(model.pairs, progress.query, some, max_tokens=self._settings.max_pair_tokens)
            )
        computed = await self._queue.run(pairs, model.score_pairs, deadline=progress.deadline)
        self._cache.remember(model.identity, progress.query, missing, computed)
        progress.tokens += sum(pair["input_ids"].size for pair in pairs)
        rest = iter(computed)
        return [next(rest) if score is None else score for score in known]


def _small(request: RerankRequest, models: Models) -> CrossEncoder | None:
    """The cascade's model; None unless the request wants a cascade."""
    if request.cascade_depth is None:
        return None
    if models.cascade is None:
        raise NotServed(
            "cascade_depth: this sidecar has no cascade model: set sidecar.cascade_model, or leave the field out",
            field="cascade_depth",
        )
    return models.cascade


def _keys(model: str, query: str, passages: Sequence[str]) -> list[bytes]:
    # Each part by its own digest: texts of any length joined to one key cannot be told apart from others.
    common = _digest(model) + _digest(query)
    return [_digest_bytes(common + _digest(passage)) for passage in passages]


def _digest(text: str) -> bytes:
    return _digest_bytes(text.encode("utf-8", "surrogatepass"))


def _digest_bytes(data: bytes) -> bytes:
    return blake2b(data, digest_size=16).digest()
