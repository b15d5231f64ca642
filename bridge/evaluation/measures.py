"""Effectiveness measures with their uncertainty: values per query, intervals, and a test between two runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import ir_measures
import numpy as np
from numpy.typing import NDArray

Qrels = Mapping[str, Mapping[str, int]]
"""Grade by query_id and doc_id; unlisted documents are not relevant."""

Run = Mapping[str, Sequence[str]]
"""doc_ids by query_id, best first. Only the order counts: trec_eval would break ties of scores by doc_id."""

_KNOWN = {
    str(measure): measure
    for measure in (ir_measures.nDCG @ 10, ir_measures.RR @ 10, ir_measures.R @ 10, ir_measures.R @ 100)
}  # as objects: ir-measures reads names by parts of `ast` that Python 3.14 no longer has

MEASURES = tuple(_KNOWN)
"""nDCG@10, RR@10, R@10 and R@100, in the notation of ir-measures; the mean of RR@10 is MRR@10."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over queries and its confidence interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Measures of one run: by measure, one value per query.

    `values`: float64, (n_queries,), in the order of `query_ids`.
    """

    query_ids: Sequence[str]
    values: Mapping[str, NDArray[np.float64]]

    def mean(self, measure: str) -> float:
        """The mean over all queries."""
        return float(self.values[measure].mean())

    def estimate(self, measure: str) -> Estimate:
        """The mean and its 95 % bootstrap interval."""
        return bootstrap_interval(self.values[measure])

    def restricted_to(self, query_ids: frozenset[str]) -> "Evaluation":
        """The same run over some of its queries only."""
        chosen = np.array([query_id in query_ids for query_id in self.query_ids], dtype=bool)
        kept = [query_id for query_id in self.query_ids if query_id in query_ids]
        return Evaluation(kept, {measure: values[chosen] for measure, values in self.values.items()})


def evaluate(qrels: Qrels, run: Run, measures: Sequence[str] = MEASURES) -> Evaluation:
    """Measures `run` on every query of `qrels`; a query without a ranking scores 0.

    Raises:
        ValueError: `qrels` is empty, or a measure is none of `MEASURES`.
    """
    if unknown := set(measures) - set(MEASURES):
        raise ValueError(f"measures {sorted(unknown)}: choose from {', '.join(MEASURES)}")
    if not qrels:
        raise ValueError("no judged queries: a mean over none does not exist")
    query_ids = list(qrels)
    row = {query_id: n for n, query_id in enumerate(query_ids)}
    values = {name: np.zeros(len(query_ids)) for name in measures}
    scored = {
        query_id: {doc_id: float(-rank) for rank, doc_id in enumerate(doc_ids, start=1)}
        for query_id, doc_ids in run.items()
        if query_id in row and doc_ids
    }
    if scored:
        for result in ir_measures.iter_calc([_KNOWN[name] for name in measures], qrels, scored):
            values[str(result.measure)][row[result.query_id]] = result.value
    return Evaluation(query_ids, values)


def bootstrap_interval(
    values: NDArray[np.float64], *, confidence: float = 0.95, resamples: int = 2000, seed: int = 0
) -> Estimate:
    """The mean of `values` with a percentile bootstrap interval over queries.

    Source: Sakai, "Evaluating evaluation metrics based on the bootstrap", SIGIR 2006; the percentile method is Efron's.
    Deterministic.

    Raises:
        ValueError: `values` is empty.
    """
    if values.size == 0:
        raise ValueError("no values: an interval needs at least one query")
    random = np.random.default_rng(seed)
    means = values[random.integers(0, values.size, size=(resamples, values.size))].mean(axis=1)
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return Estimate(float(values.mean()), float(low), float(high))


def randomisation_test(
    first: NDArray[np.float64], second: NDArray[np.float64], *, permutations: int = 10_000, seed: int = 0
) -> float:
    """Two-sided p-value of Fisher's paired randomisation test: the share of random swaps of the two runs' values, query
    by query, whose means differ at least as much as the observed ones.

    Source: Smucker, Allan and Carterette, "A comparison of statistical significance tests for information retrieval
    evaluation", CIKM 2007. Swaps are sampled, not enumerated; the observed labelling counts as one sample, so the
    p-value is never 0.

    Raises:
        ValueError: the two runs have different queries, or none.
    """
    if first.shape != second.shape or first.size == 0:
        raise ValueError(f"paired values expected, got {first.size} and {second.size}: evaluate both on one qrels")
    differences = first - second
    observed = abs(differences.mean())
    random = np.random.default_rng(seed)
    signs = random.choice(np.array([-1.0, 1.0]), size=(permutations, differences.size))
    # Rounding must not make a labelling look smaller than the same labelling observed.
    at_least = np.abs((signs * differences).mean(axis=1)) >= observed - 1e-12
    return float((at_least.sum() + 1) / (permutations + 1))
