"""Several rankings of the same documents → one. Pure; ties are broken by the documents' keys."""

import math
from collections.abc import Mapping, Sequence
from statistics import fmean

from bridge.profile import FusionSettings, IndexProfile, Stage
from bridge.records import Hit, Key, LegScore, RankedHit

_LARGEST_EXPONENT = 700.0
"""Beyond it exponentials overflow."""

LegRankings = Mapping[str, Sequence[Hit]]
"""Leg name → its hits, best first, each document once."""


def leg_weights(profile: IndexProfile, stage: Stage) -> dict[str, float]:
    """Leg → weight, for a search that stops at `stage`; all above zero.

    Where nothing was expanded the application's own query takes the place of the expansion leg; where there
    are no vectors the texts rank alone.
    """
    has_vectors = profile.vector_type != "none"
    text_leg = "expansion" if profile.generator is not None else "lexical"
    match stage:
        case "expansion" | "lexical":
            return {text_leg: 1.0}
        case "vector" if has_vectors:
            return {"vector": 1.0}
    weights = {leg: weight for leg, weight in profile.fusion.weights.items() if has_vectors or leg != "vector"}
    if text_leg == "lexical":
        weights["lexical"] = max(weights.get("lexical", 0.0), weights.pop("expansion", 0.0))
    return {leg: weight for leg, weight in weights.items() if weight > 0} or {text_leg: 1.0}


def fuse(rankings: LegRankings, settings: FusionSettings, *, window: int) -> list[RankedHit]:
    """The first `window` documents of the fused ranking.

    A document's fused score is the weighted mean of what the legs give it; a leg that did not find it
    gives it `absent`. A leg whose weight is zero (or that `weights` lacks) neither adds documents nor
    moves them, but its ranks are told. `fused_score` lies in 0…1 whatever the method; `score` equals it.
    """
    weights = {leg: weight for leg in sorted(rankings) if (weight := settings.weights.get(leg, 0.0)) > 0}
    total = sum(weights.values())
    shares: list[tuple[float, dict[Key, float], float]] = []
    for leg, weight in weights.items():
        hits = rankings[leg]
        contributions, absent = _contributions([hit.score for hit in hits], settings, complete=len(hits) < window)
        given = {hit.key: value for hit, value in zip(hits, contributions, strict=True)}
        shares.append((weight / total, given, absent))
    found = {key for _, given, _ in shares for key in given}
    fused = {key: sum([share * given.get(key, absent) for share, given, absent in shares]) for key in found}
    best = sorted(fused, key=lambda key: (-fused[key], key))[:window]
    found_by: dict[Key, dict[str, LegScore]] = {key: {} for key in best}
    for leg, hits in rankings.items():
        for rank, hit in enumerate(hits, start=1):
            if (legs := found_by.get(hit.key)) is not None:
                legs[leg] = LegScore(rank, hit.score)
    scores = {key: logistic(fused[key]) if settings.method == "zscore" else fused[key] for key in best}
    return [RankedHit(*key, score, legs=found_by[key], fused_score=score) for key, score in scores.items()]


def _contributions(scores: Sequence[float], settings: FusionSettings, *, complete: bool) -> tuple[list[float], float]:
    """What a leg gives to each of its hits, and to every document that it did not find.

    A complete leg found all that match at all: then even its last hit stands above the documents that it
    lacks. A full window may have been cut just below its last hit.
    """
    match settings.method:
        case "rrf":
            return _reciprocal_ranks(len(scores), settings.k), 0.0
        case "minmax":
            return minmax([0.0, *scores])[1:] if complete else minmax(scores), 0.0
        case "zscore":
            standard = _standard_scores(scores)
            return standard, min(standard, default=0.0) - (1.0 if complete else 0.0)


def _reciprocal_ranks(n: int, k: int) -> list[float]:
    """Cormack, Clarke, Büttcher (SIGIR 2009): 1 / (k + rank); here times k + 1, so that rank 1 gives 1."""
    return [(k + 1) / (k + rank) for rank in range(1, n + 1)]


def minmax(scores: Sequence[float]) -> list[float]:
    """Scores moved and stretched to 0…1, after Lee (SIGIR 1997); all 1 where they are all equal."""
    if not scores:
        return []
    low, high = min(scores), max(scores)
    if high == low:
        return [1.0] * len(scores)
    return [(score - low) / (high - low) for score in scores]


def blended(scores: Sequence[float], prior: Sequence[float], weight: float) -> list[float]:
    """`(1 - weight) × score + weight × prior`, both stretched to 0…1."""
    pairs = zip(minmax(scores), minmax(prior), strict=True)
    return [(1 - weight) * score + weight * given for score, given in pairs]


def _standard_scores(scores: Sequence[float]) -> list[float]:
    """Scores less their mean, in standard deviations (Montague and Aslam, CIKM 2001); 0 where all equal."""
    if not scores:
        return []
    mean = fmean(scores)
    deviation = math.sqrt(fmean([(score - mean) ** 2 for score in scores]))
    # The mean of equal numbers may differ from them by a rounding.
    if deviation == 0 or min(scores) == max(scores):
        return [0.0] * len(scores)
    return [(score - mean) / deviation for score in scores]


def logistic(value: float) -> float:
    """A number of any size as one in 0…1."""
    return 1 / (1 + math.exp(min(-value, _LARGEST_EXPONENT)))
