"""Doc2Query: the queries that a document is likely to answer, as text to be searched
(Nogueira et al. 2019, "Document expansion by query prediction": https://arxiv.org/abs/1904.08375)."""

import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice, zip_longest
from typing import Self

from bridge.errors import IndexUnsuitable
from bridge.models.protocols import QueryGenerator, Scorer
from bridge.models.session import compute_threads
from bridge.profile import FilterThreshold, IndexProfile
from bridge.records import Document, ExpandedDocument, Passage
from bridge.settings import IngestSettings
from bridge.text import enriched_text, split_passages
from ingest.stages.models import Models

_WORD = re.compile(r"\w+")

Split = Callable[[str], list[Passage]]
"""A document's enriched text → its passages."""

Keep = Callable[[Sequence[str], Sequence[Sequence[str]]], list[list[str]]]
"""Passages and the queries of each → the queries that stay."""


class QueryFilter:
    """Doc2Query−−: drops predicted queries that their own passage does not answer: the document would turn up in wrong
    results (Gospodinov et al. 2023, "Doc2Query--: when less is more": https://arxiv.org/abs/2301.03266)."""

    def __init__(self, scorer: Scorer, *, threshold: float, threads: int) -> None:
        """Keeps queries whose score reaches `threshold`; scores them one by one, on `threads` threads."""
        self._scorer = scorer
        self._threshold = threshold
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="query-filter")

    def __call__(self, passages: Sequence[str], queries: Sequence[Sequence[str]]) -> list[list[str]]:
        """The queries of each passage that stay, best score first."""
        kept = []
        for predicted, scores in zip(queries, self.scores(passages, queries), strict=True):
            ranked = sorted(zip(scores, predicted, strict=True), key=lambda pair: -pair[0])
            kept.append([query for score, query in ranked if score >= self._threshold])
        return kept

    def scores(self, passages: Sequence[str], queries: Sequence[Sequence[str]]) -> list[list[float]]:
        """The score of each query of each passage, in their order."""
        pairs = [(passage, query) for passage, predicted in zip(passages, queries, strict=True) for query in predicted]
        scores = self._executor.map(self._score, pairs)
        return [list(islice(scores, len(predicted))) for predicted in queries]

    def _score(self, pair: tuple[str, str]) -> float:
        passage, query = pair
        return float(self._scorer.score(query, [passage])[0])


class Expansion:
    """The stage that splits documents into passages and predicts queries for each."""

    def __init__(
        self,
        split: Split,
        generator: QueryGenerator | None,
        *,
        n_queries: int,
        max_query_tokens: int,
        max_bytes: int,
        keep: Keep | None = None,
        new_terms_only: bool = False,
        seed: int = 0,
    ) -> None:
        """`generator` None predicts nothing. `max_bytes` bounds the queries of one document, in UTF-8. `keep` is a
        `QueryFilter`. `new_terms_only` leaves out of the queries the words that the document already has."""
        self._split = split
        self._generator = generator
        self._n_queries = n_queries
        self._max_query_tokens = max_query_tokens
        self._max_bytes = max_bytes
        self._keep = keep
        self._new_terms_only = new_terms_only
        self._seed = seed

    @classmethod
    def of(cls, profile: IndexProfile, models: Models, settings: IngestSettings, *, keep: Keep | None = None) -> Self:
        """The stage for an index with this profile; `keep` replaces the filter that the settings name.

        Raises:
            IndexUnsuitable: see `filter_threshold`.
        """
        if keep is None and models.scorer is not None:
            threads = compute_threads(settings.threads)
            keep = QueryFilter(models.scorer, threshold=filter_threshold(profile, settings), threads=threads)
        return cls(
            partial(split_passages, settings=profile.passages, token_spans=models.token_spans),
            models.generator if profile.generator else None,
            n_queries=settings.queries_per_passage,
            max_query_tokens=settings.max_query_tokens,
            max_bytes=settings.max_expansion_bytes,
            keep=keep,
            new_terms_only=settings.new_terms_only,
        )

    def __call__(self, documents: Sequence[Document]) -> list[ExpandedDocument]:
        """Expands a batch, in its order.

        Raises:
            ModelError: a model failed.
        """
        texts = [enriched_text(document.texts) for document in documents]
        split = [self._split(text) for text in texts]
        predicted = iter(self._predict([passage.text for passages in split for passage in passages]))
        return [
            ExpandedDocument(
                document, passages, self._chosen(text, [next(predicted) for _ in passages]) if passages else []
            )
            for document, text, passages in zip(documents, texts, split, strict=True)
        ]

    def _predict(self, passages: list[str]) -> list[list[str]]:
        if self._generator is None or not passages or not self._n_queries:
            return [[] for _ in passages]
        queries = self._generator.generate(
            passages, n_queries=self._n_queries, max_new_tokens=self._max_query_tokens, seed=self._seed
        )
        return self._keep(passages, queries) if self._keep else queries

    def _chosen(self, text: str, queries: list[list[str]]) -> list[str]:
        """Different queries, the passages' best ones first, as many as the budget holds."""
        chosen: list[str] = []
        budget = self._max_bytes
        best_first: Iterator[str] = (query for rank in zip_longest(*queries) for query in rank if query)
        if self._new_terms_only:
            best_first = _new_terms(text, best_first)
        for query in _different(best_first):
            size = len(query.encode()) + 1
            if size > budget:
                break
            budget -= size
            chosen.append(query)
        return chosen


def filter_threshold(profile: IndexProfile, settings: IngestSettings) -> float:
    """The lowest score of a predicted query that stays: a fixed one, or the one in the index's profile.

    Raises:
        IndexUnsuitable: `ingest.filter_percentile` needs a score in the profile, and it has none.
    """
    if settings.filter_percentile is None:
        return settings.filter_threshold
    known = known_threshold(profile, profile, settings)
    if known is None:
        raise IndexUnsuitable(
            f"the score that the lowest {settings.filter_percentile:g} % of predicted queries miss "
            f"(ingest.filter_percentile) is not known for this index: `neural-bridge backfill` or `ingest` finds it out"
        )
    return known.score


def known_threshold(
    kept: IndexProfile | None, wanted: IndexProfile, settings: IngestSettings
) -> FilterThreshold | None:
    """The threshold in the profile `kept`, if it was found for the queries that `wanted` and `settings` produce."""
    known = kept.filter_threshold if kept is not None else None
    generator = wanted.generator.identity if wanted.generator else ""
    needed = (generator, settings.filter_model, settings.filter_percentile)
    return known if known and (known.generator, known.model, known.percentile) == needed else None


def _new_terms(text: str, queries: Iterator[str]) -> Iterator[str]:
    """Of each query the words that neither the text nor a query before it has; by letters, not by stems."""
    known = set(_WORD.findall(text.casefold()))
    for query in queries:
        new = [word for word in _WORD.findall(query) if word.casefold() not in known]
        known.update(word.casefold() for word in new)
        yield " ".join(new)


def _different(queries: Iterator[str]) -> Iterator[str]:
    seen: set[str] = set()
    for query in queries:
        words = " ".join(query.split())
        if words and words.casefold() not in seen:
            seen.add(words.casefold())
            yield words
