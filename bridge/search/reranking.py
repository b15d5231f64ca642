"""A fused ranking and a cross-encoder's scores → the final ranking. Pure: the proxy calls the sidecar.

The `score` of a hit tells which stage ranked it: 2…3 the cross-encoder (in a cascade 2.5…3 the large one and
2…2.5 the small one), 1…2 the fusion, 0…1 the tail in the application's own order. So it never rises down the
ranking, on no page.
"""

from collections.abc import Mapping, Sequence
from statistics import fmean

from msgspec.structs import replace

from bridge.profile import PassageScores, RerankSettings
from bridge.records import Key, RankedHit
from bridge.search.fusion import blended, logistic

FUSED_FLOOR = 1.0
RERANKED_FLOOR = 2.0
SMALL_MODEL_CEILING = 2.5
RERANKED_CEILING = 3.0


def first_stage(fused: Sequence[RankedHit]) -> list[RankedHit]:
    """The fused ranking with the scores that its hits carry in an answer."""
    return [replace(hit, score=FUSED_FLOOR + (hit.fused_score or 0.0)) for hit in fused]


def rerank(fused: Sequence[RankedHit], logits: Mapping[Key, float], settings: RerankSettings) -> list[RankedHit]:
    """Orders the documents that have a logit by it, before all others, which keep their fused order.

    Where `blend` is not zero, the order is by `(1 - blend) × logit + blend × fused score`, both stretched
    to 0…1 over these documents. Ties keep their fused order.
    """
    read = _by_score(fused, logits, settings, RERANKED_FLOOR, RERANKED_CEILING)
    return [*(replace(hit, rerank_score=logits[hit.key]) for hit in read), *_rest(fused, logits)]


def cascade(fused: Sequence[RankedHit], scores: Mapping[Key, float], settings: RerankSettings) -> list[RankedHit]:
    """Orders the documents that have a score of a cascade before all others.

    The best `settings.cascade.depth` of them were read by the large cross-encoder, and stay before those that
    the small one alone read. Each of the two groups is ordered as by `rerank`.
    """
    large = set(sorted(scores, key=lambda key: -scores[key])[: settings.cascade.depth])
    read = {key: score for key, score in scores.items() if key in large}
    small_only = {key: score for key, score in scores.items() if key not in large}
    best = _by_score(fused, read, settings, SMALL_MODEL_CEILING, RERANKED_CEILING)
    others = _by_score(fused, small_only, settings, RERANKED_FLOOR, SMALL_MODEL_CEILING)
    return [
        *(replace(hit, rerank_score=scores[hit.key]) for hit in best),
        *(replace(hit, cascade_score=scores[hit.key]) for hit in others),
        *_rest(fused, scores),
    ]


def _by_score(
    fused: Sequence[RankedHit], scores: Mapping[Key, float], settings: RerankSettings, floor: float, ceiling: float
) -> list[RankedHit]:
    """The documents that have a score, by it and the fused score together, between `floor` and `ceiling`."""
    candidates = [hit for hit in fused if hit.key in scores]
    shares = blended([scores[hit.key] for hit in candidates], fused_scores(candidates), settings.blend)
    scored = [
        replace(hit, score=floor + (ceiling - floor) * share) for hit, share in zip(candidates, shares, strict=True)
    ]
    return sorted(scored, key=lambda hit: -hit.score)


def fused_scores(hits: Sequence[RankedHit]) -> list[float]:
    """What the fusion gave to each."""
    return [hit.fused_score or 0.0 for hit in hits]


def _rest(fused: Sequence[RankedHit], scores: Mapping[Key, float]) -> list[RankedHit]:
    return first_stage([hit for hit in fused if hit.key not in scores])


def of_passages(logits: Sequence[float], how: PassageScores) -> float:
    """A document's score from those of its passages: the best one's (`max`), or the mean or the sum of the
    probabilities that each is relevant (Dai and Callan 2019, "Deeper text understanding for IR with contextual
    neural language modeling", MaxP and SumP: https://arxiv.org/abs/1905.09217)."""
    match how:
        case "max":
            return max(logits)
        case "mean":
            return fmean(logistic(logit) for logit in logits)
        case "sum":
            return sum(logistic(logit) for logit in logits)


def tail_score(own_score: float) -> float:
    """The score in an answer of a document beyond the ranking, from the application's own score ≥ 0."""
    return own_score / (1 + own_score) if own_score > 0 else 0.0
