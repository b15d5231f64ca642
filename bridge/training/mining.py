"""Mines negatives: passages that look right for a query and are not.

Three kinds, as in Karpukhin et al. 2020 (DPR) and Xiong et al. 2021 (ANCE): random ones of the same domain, the best of
BM25, and the best of a bi-encoder. A mined passage almost as close to the query as the judged one, by the bi-encoder,
is probably an unjudged answer and is left out (Qu et al. 2021, RocketQA).
"""

import logging
from collections import defaultdict
from collections.abc import Callable, Sequence

import bm25s
import msgspec
import numpy as np
import Stemmer
import structlog
from numpy.typing import NDArray

from bridge.training.data import LabelledPair, source_named

log = structlog.get_logger(__name__)

Embed = Callable[[Sequence[str]], NDArray[np.float32]]
"""Texts → float32 (n_texts, dimension), rows of unit length, input order."""


class PooledPassage(msgspec.Struct, frozen=True):
    """One distinct passage of the training set, and its domain."""

    text: str
    title: str
    domain: str


class CandidateList(msgspec.Struct, frozen=True):
    """A query with its judged passage and mined negatives, as indices into the pool.

    `lexical` and `dense` are ordered hardest first; a passage that both rankings return is in both. `cosines` are the
    bi-encoder's, for `positive`, `lexical` and `dense` in that order. `rivals`: queries about the same passage that it
    does not answer (adversarially written questions); they teach that shared words are not an answer.
    """

    query: str
    source: str
    positive: int
    lexical: list[int]
    dense: list[int]
    cosines: list[float]
    rivals: list[str]

    @property
    def rows(self) -> list[int]:
        """All of the list's passages: `positive`, `lexical`, `dense`."""
        return [self.positive, *self.lexical, *self.dense]


class CandidateSet(msgspec.Struct, frozen=True):
    """The training data of a ranking model."""

    passages: list[PooledPassage]
    lists: list[CandidateList]


def bm25_index(texts: Sequence[str]) -> bm25s.BM25:
    """BM25 with k1 0.9, b 0.4 and Porter stems (Anserini's defaults)."""
    logging.getLogger("bm25s").setLevel(logging.WARNING)  # it logs every index that it builds
    index = bm25s.BM25(method="lucene", k1=0.9, b=0.4)
    index.index(
        bm25s.tokenize(list(texts), stopwords="en", stemmer=Stemmer.Stemmer("porter"), show_progress=False),
        show_progress=False,
    )
    return index


def bm25_top(index: bm25s.BM25, queries: Sequence[str], depth: int) -> NDArray[np.int64]:
    """int64 (n_queries, depth): the rows of the best texts, best first."""
    return bm25_scored(index, queries, depth)[0]


def bm25_scores(index: bm25s.BM25, query: str) -> NDArray[np.float32]:
    """float32 (n_texts,): the score of every text; 0 without a query word."""
    [words] = bm25s.tokenize(
        [query], stopwords="en", stemmer=Stemmer.Stemmer("porter"), show_progress=False, return_ids=False
    )
    if not words:  # which bm25s cannot score
        return np.zeros(index.scores["num_docs"], dtype=np.float32)
    return np.asarray(index.get_scores(words), dtype=np.float32)


def bm25_scored(index: bm25s.BM25, queries: Sequence[str], depth: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Rows of the best texts, int64, and their scores, float32; both (n_queries, depth), best first. A text without
    a query word scores 0."""
    tokens = bm25s.tokenize(list(queries), stopwords="en", stemmer=Stemmer.Stemmer("porter"), show_progress=False)
    rows, scores = index.retrieve(tokens, k=depth, show_progress=False)
    return np.asarray(rows, dtype=np.int64), np.asarray(scores, dtype=np.float32)


def mine_candidates(pairs: Sequence[LabelledPair], embed: Embed, *, depth: int) -> CandidateSet:
    """Candidate lists for every relevant pair, mined among the passages of its domain.

    `depth`: how far down each ranking to look for negatives. Pairs without any negative are dropped.
    """
    pool = _Pool()
    relevant: dict[str, set[int]] = defaultdict(set)
    rivals: dict[int, list[str]] = defaultdict(list)
    positives: list[tuple[LabelledPair, int]] = []
    for pair in pairs:
        passage = pool.add(pair)
        if pair.relevant:
            relevant[pair.query].add(passage)
            positives.append((pair, passage))
        else:
            rivals[passage].append(pair.query)

    by_domain: dict[str, list[tuple[LabelledPair, int]]] = defaultdict(list)
    for pair, passage in positives:
        by_domain[pool.passages[passage].domain].append((pair, passage))

    lists: list[CandidateList] = []
    for domain in sorted(by_domain):
        judged = by_domain[domain]
        members = np.asarray(pool.of_domain(domain))
        texts = [pool.passages[row].text for row in members]
        queries = [pair.query for pair, _ in judged]
        within = min(depth, len(members))
        lexical = members[bm25_top(bm25_index(texts), queries, within)]
        passage_embeddings = embed(texts)
        query_embeddings = embed(queries)
        place = {int(row): number for number, row in enumerate(members)}
        for number, (pair, positive) in enumerate(judged):
            cosines = passage_embeddings @ query_embeddings[number]
            nearest = members[np.argsort(-cosines, kind="stable")[:within]]
            judged_cosine = float(cosines[place[positive]])
            limit = max(0.95 * judged_cosine, source_named(pair.source).trusted_cosine)
            answers = relevant[pair.query]

            def negatives(rows: NDArray[np.int64]) -> list[int]:
                return [
                    int(row)
                    for row in rows
                    if int(row) not in answers and cosines[place[int(row)]] < limit  # noqa: B023
                ]

            mined_lexical, mined_dense = negatives(lexical[number]), negatives(nearest)
            if not mined_lexical and not mined_dense:
                continue
            members_of_list = [positive, *mined_lexical, *mined_dense]
            lists.append(
                CandidateList(
                    query=pair.query,
                    source=pair.source,
                    positive=positive,
                    lexical=mined_lexical,
                    dense=mined_dense,
                    cosines=[round(float(cosines[place[row]]), 4) for row in members_of_list],
                    rivals=rivals.get(positive, []),
                )
            )
        log.info("mined", domain=domain, passages=len(members), queries=len(judged))
    return CandidateSet(pool.passages, lists)


def hardest(candidates: CandidateSet, per_kind: int) -> CandidateSet:
    """The `per_kind` hardest negatives of BM25 and of the bi-encoder: few enough for slow teachers."""
    lists = []
    for found in candidates.lists:
        n_lexical, kept = len(found.lexical), slice(per_kind)
        cosines = [found.cosines[0], *found.cosines[1 : 1 + n_lexical][kept], *found.cosines[1 + n_lexical :][kept]]
        lists.append(
            msgspec.structs.replace(found, lexical=found.lexical[kept], dense=found.dense[kept], cosines=cosines)
        )
    return CandidateSet(candidates.passages, lists)


def without_overlaps(candidates: CandidateSet) -> CandidateSet:
    """Drops negatives that share running text with the relevant passage.

    Collections cut from the same books and manuals have sections that contain each other; such a neighbour answers as
    well as the judged one. Sharing a fifth of the shorter passage's eight-word sequences counts as overlap.
    """
    stretches = [_stretches(passage.text) for passage in candidates.passages]

    def differs(positive: int, row: int) -> bool:
        shorter = min(len(stretches[positive]), len(stretches[row]))
        return len(stretches[positive] & stretches[row]) <= 0.2 * shorter

    lists = []
    for candidate_list in candidates.lists:
        mined = [*candidate_list.lexical, *candidate_list.dense]
        kept = [differs(candidate_list.positive, row) for row in mined]
        n_lexical = len(candidate_list.lexical)
        lexical = [row for row, keep in zip(candidate_list.lexical, kept[:n_lexical], strict=True) if keep]
        dense = [row for row, keep in zip(candidate_list.dense, kept[n_lexical:], strict=True) if keep]
        if lexical or dense:
            cosines = [cosine for cosine, keep in zip(candidate_list.cosines, [True, *kept], strict=True) if keep]
            lists.append(msgspec.structs.replace(candidate_list, lexical=lexical, dense=dense, cosines=cosines))
    return CandidateSet(candidates.passages, lists)


def _stretches(text: str, n_words: int = 8) -> frozenset[int]:
    words = text.lower().split()
    return frozenset(hash(tuple(words[start : start + n_words])) for start in range(len(words) - n_words + 1))


class _Pool:
    """Distinct passages in order of arrival; equal texts are one passage, of the first one's domain."""

    def __init__(self) -> None:
        self.passages: list[PooledPassage] = []
        self._rows: dict[str, int] = {}

    def add(self, pair: LabelledPair) -> int:
        row = self._rows.setdefault(pair.passage, len(self.passages))
        if row == len(self.passages):
            domain = source_named(pair.source).domain
            self.passages.append(PooledPassage(pair.passage, pair.title, domain))
        return row

    def of_domain(self, domain: str) -> list[int]:
        return [row for row, passage in enumerate(self.passages) if passage.domain == domain]
