"""Doc2Query: the queries that a document is likely to answer, as text to be searched
(Nogueira et al. 2019, "Document expansion by query prediction": https://arxiv.org/abs/1904.08375)."""

import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice, zip_longest
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from bridge.records import Document, ExpandedDocument, Passage
from bridge.text.passages import enriched_text

_WORD = re.compile(r"\w+")

Split = Callable[[str], list[Passage]]
"""A document's enriched text → its passages."""


Keep = Callable[[Sequence[str], Sequence[Sequence[str]]], list[list[str]]]
"""Passages and the queries of each → the queries that stay."""


class QueryGenerator(Protocol):
    """Passages → queries; see `bridge.models.query_generator`."""

    def generate(self, passages: Sequence[str], *, n_queries: int, max_new_tokens: int, seed: int) -> list[list[str]]:
        """Per passage at most `n_queries` queries, best first."""


class Scorer(Protocol):
    """Query, passages → scores; see `bridge.models.cross_encoder`."""

    def score(self, query: str, passages: Sequence[str]) -> NDArray[np.float32]:
        """float32, (n_passages,), input order."""


class QueryFilter:
    """Doc2Query−−: drops predicted queries that their own passage does not answer, which would only draw
    the document into wrong results (Gospodinov et al. 2023: https://arxiv.org/abs/2301.03266)."""

    def __init__(self, scorer: Scorer, *, threshold: float, threads: int) -> None:
        """Keeps queries whose score reaches `threshold`. Each query is a call of its own, `threads` of them
        at once."""
        self._scorer = scorer
        self._threshold = threshold
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="query-filter")

    def __call__(self, passages: Sequence[str], queries: Sequence[Sequence[str]]) -> list[list[str]]:
        """Of each passage's queries those that stay, best score first."""
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
        """`generator` None predicts nothing. `max_bytes` bounds the queries of one document, in UTF-8.
        `keep` is a `QueryFilter`. `new_terms_only` keeps of the queries the words that the document lacks."""
        self._split = split
        self._generator = generator
        self._n_queries = n_queries
        self._max_query_tokens = max_query_tokens
        self._max_bytes = max_bytes
        self._keep = keep
        self._new_terms_only = new_terms_only
        self._seed = seed

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
        if self._keep is None:
            return queries
        return self._keep(passages, queries)

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
