"""Several rankings of the same documents → one: legs are fused, and a cross-encoder's scores are blended in. Pure; ties
are broken by the documents' keys.

The `score` of a hit tells which stage ranked it: 2…3 the cross-encoder (in a cascade 2.5…3 the large one and 2…2.5 the
small one), 1…2 the fusion, 0…1 the tail in the application's own order. So it never rises down the ranking, on no page.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from itertools import groupby
from statistics import fmean

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray

from bridge.profile import FusionSettings, IndexProfile, PassageScores, RerankSettings, Stage
from bridge.records import Hit, Key, LegScore, RankedHit, Smoothed

_LARGEST_EXPONENT = 700.0
"""Beyond it exponentials overflow."""

_LARGEST_SCORE = 1e6
"""Beyond it the distances between scores are lost in single precision, and in the end overflow in double precision."""

N_SMOOTHED = 50
"""So many of the first fused documents are smoothed, each by its nearest among them."""

N_NEIGHBOURS = 8
NEARNESS_POWER = 6
"""A neighbour counts by its cosine to this power: distant ones hardly count."""
LIKENESS_POWER = 16
"""Likeness counts against a document by its cosine to this power: near-duplicates count, documents on one subject
hardly do. Lower powers cost relevance (`scripts/bench diverse`)."""

FUSED_FLOOR = 1.0
RERANKED_FLOOR = 2.0
SMALL_MODEL_CEILING = 2.5
RERANKED_CEILING = 3.0

LegRankings = Mapping[str, Sequence[Hit]]
"""Leg name → its hits, best first, each document once."""


def leg_weights(profile: IndexProfile, stage: Stage) -> dict[str, float]:
    """Leg → weight, for a search that stops at `stage`; all above zero.

    If nothing was expanded, the application's own query takes the place of the expansion leg. A leg whose field the
    documents lack has no weight.
    """
    text_leg = "expansion" if profile.generator is not None else "lexical"
    match stage:
        case "expansion" | "lexical":
            return {text_leg: 1.0}
        case "vector" if profile.has_vectors:
            return {"vector": 1.0}
        case "sparse" if profile.has_terms:
            return {"sparse": 1.0}
        case "image" if profile.image is not None:
            return {"image": 1.0}
    has_field = {"vector": profile.has_vectors, "sparse": profile.has_terms, "image": profile.image is not None}
    lacking = {leg for leg, has in has_field.items() if not has}
    weights = {leg: weight for leg, weight in profile.fusion.weights.items() if leg not in lacking}
    if text_leg == "lexical":
        weights["lexical"] = max(weights.get("lexical", 0.0), weights.pop("expansion", 0.0))
    return {leg: weight for leg, weight in weights.items() if weight > 0} or {text_leg: 1.0}


def smooths(profile: IndexProfile, stage: Stage) -> bool:
    """Whether a search that stops at `stage` smooths the fused scores."""
    if not profile.has_codes or profile.fusion.smoothing == 0:
        return False
    return stage == "smoothing" or (stage in ("cascade", "rerank") and "smoothing" in profile.stages)


def fuse(
    rankings: LegRankings,
    settings: FusionSettings,
    *,
    window: int,
    codes: Mapping[Key, bytes] | None = None,
    cut: bool = True,
) -> list[RankedHit]:
    """The first `window` documents of the fused ranking, or all of them unless it is `cut`.

    A document's fused score is the weighted mean of what the legs give it; a leg that did not find it
    gives it `absent`. A leg whose weight is zero (or that `weights` lacks) neither adds documents nor
    moves them, but its ranks are told. `fused_score` lies in 0…1 whatever the method; `score` equals it.

    With `codes`, all of one length, scores are smoothed: documents that resemble each other get scores that resemble
    each other (score regularisation: Diaz 2005, https://doi.org/10.1145/1099554.1099722; it rests on the cluster
    hypothesis, that similar documents answer the same queries). A document without a code keeps its score.
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
    best = sorted(fused, key=lambda key: (-fused[key], key))[: window if cut else None]
    final = dict(fused)
    neighbours = _neighbours(best[: min(N_SMOOTHED, window)], codes or {})
    for key, near in neighbours.items():
        of_others = sum([share * fused[other] for other, share in near.items()])
        final[key] = (1 - settings.smoothing) * fused[key] + settings.smoothing * of_others
    best.sort(key=lambda key: (-final[key], key))
    found_by: dict[Key, dict[str, LegScore]] = {key: {} for key in best}
    for leg, hits in rankings.items():
        for rank, hit in enumerate(hits, start=1):
            if (legs := found_by.get(hit.key)) is not None:
                legs[leg] = LegScore(rank, hit.score)

    def shown(score: float) -> float:
        return logistic(score) if settings.method == "zscore" else score

    smoothed = {
        key: Smoothed(shown(fused[key]), {other: settings.smoothing * share for other, share in near.items()})
        for key, near in neighbours.items()
    }
    return [
        RankedHit(*key, score, legs=found_by[key], fused_score=score, smoothed=smoothed.get(key))
        for key in best
        for score in [shown(final[key])]
    ]


def _neighbours(keys: Sequence[Key], codes: Mapping[Key, bytes]) -> dict[Key, dict[Key, float]]:
    """The nearest others of each document that has a code and any others near it, with weights that add up to 1."""
    coded = [key for key in keys if key in codes]
    if len(coded) < 2:
        return {}
    nearness = cosines([codes[key] for key in coded]) ** NEARNESS_POWER
    np.fill_diagonal(nearness, 0.0)  # no document is its own neighbour
    nearest = np.argsort(-nearness, axis=1, kind="stable")[:, :N_NEIGHBOURS]
    found: dict[Key, dict[Key, float]] = {}
    for key, row, places in zip(coded, nearness, nearest, strict=True):
        if (total := row[places].sum()) > 0:
            found[key] = {coded[place]: float(row[place] / total) for place in places if row[place] > 0}
    return found


def cosines(codes: Sequence[bytes]) -> NDArray[np.float64]:
    """float64 (n, n): the estimated cosine of each two vectors from their codes, all of one length; 0 where it is
    negative. Each bit of a code says on which side of a plane a vector lies, and two vectors agree in as many bits as
    the angle between them is small (Charikar 2002, "Similarity estimation techniques from rounding algorithms",
    https://doi.org/10.1145/509907.509965)."""
    packed = np.frombuffer(b"".join(codes), dtype=np.uint8).reshape(len(codes), -1)
    # Bits are counted, because a product of matrices wakes threads of the library that multiplies, which then spin:
    # they took a proxy's cores for seven times as long as all the rest of a search.
    differing = np.array([np.bitwise_count(packed ^ code).sum(axis=1, dtype=np.int64) for code in packed])
    angles = np.pi * differing / (8 * packed.shape[1])
    estimated: NDArray[np.float64] = np.clip(np.cos(angles), 0.0, None)
    return estimated


def diversify(
    hits: Sequence[RankedHit],
    codes: Mapping[Key, bytes],
    share: float,
    *,
    reranked: int,
    before: Collection[Key] = (),
) -> list[RankedHit]:
    """Puts documents that are unlike all those before them further up: maximal marginal relevance (Carbonell and
    Goldstein 1998, https://doi.org/10.1145/290941.291025), with `share` for likeness and the rest for the score.

    Documents that one stage ranked stay before those of the next, and the first `reranked` before the others: which
    documents these are, and so every page beyond them, does not depend on the cross-encoders' scores. The scores of a
    stage keep their places. `codes` as for `fuse`; one without a code is like no other. `before` stand above all.
    """
    coded = [key for key in [*before, *(hit.key for hit in hits)] if key in codes]
    if not coded:
        return list(hits)
    # The last row stands for documents without a code.
    row_of = {key: row for row, key in enumerate(coded)}
    likeness = np.pad(cosines([codes[key] for key in coded]), (0, 1))
    nearest = np.max(likeness[[row_of.get(key, -1) for key in before]], axis=0, initial=0.0)
    final: list[RankedHit] = []
    for _, ranked_alike in groupby(enumerate(hits), lambda at: (at[0] < reranked, _ranked_by(at[1]))):
        stage = [hit for _, hit in ranked_alike]
        scores = [hit.score for hit in stage]
        rows = np.array([row_of.get(hit.key, -1) for hit in stage])
        relevance = (1 - share) * np.array(minmax(scores))
        for score in scores:
            # The first of several that are as good.
            best = int(np.argmax(relevance - share * nearest[rows] ** LIKENESS_POWER))
            final.append(replace(stage[best], score=score, nearest_above=float(nearest[rows[best]])))
            nearest = np.maximum(nearest, likeness[rows[best]])
            relevance[best] = -np.inf
    return final


def _ranked_by(hit: RankedHit) -> str:
    """The last stage that ranked a hit."""
    if hit.rerank_score is not None:
        return "rerank"
    return "cascade" if hit.cascade_score is not None else "fusion"


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
    """Scores moved and stretched to 0…1, after Lee (SIGIR 1997); all 1 if they are all equal."""
    if not scores:
        return []
    scores = in_range(scores)
    low, high = min(scores), max(scores)
    if high == low:
        return [1.0] * len(scores)
    return [(score - low) / (high - low) for score in scores]


def in_range(scores: Sequence[float]) -> Sequence[float]:
    """Finite scores in their order, all divided by one number if any is so large that arithmetic could lose or overflow
    it: a reranker may answer 1e308."""
    largest = max(map(abs, scores), default=0.0)
    if largest <= _LARGEST_SCORE:
        return scores
    return [score / largest * _LARGEST_SCORE for score in scores]


def blended(scores: Sequence[float], prior: Sequence[float], weight: float) -> list[float]:
    """`(1 - weight) × score + weight × prior`, both stretched to 0…1."""
    pairs = zip(minmax(scores), minmax(prior), strict=True)
    return [(1 - weight) * score + weight * given for score, given in pairs]


def _standard_scores(scores: Sequence[float]) -> list[float]:
    """Scores less their mean, in standard deviations (Montague and Aslam, CIKM 2001); 0 if all equal."""
    if not scores:
        return []
    scores = in_range(scores)
    mean = fmean(scores)
    deviation = math.sqrt(fmean([(score - mean) ** 2 for score in scores]))
    # The mean of equal numbers may differ from them by a rounding.
    if deviation == 0 or min(scores) == max(scores):
        return [0.0] * len(scores)
    return [(score - mean) / deviation for score in scores]


def logistic(value: float) -> float:
    """A number of any size as one in 0…1."""
    return 1 / (1 + math.exp(min(-value, _LARGEST_EXPONENT)))


def confidence(profile: IndexProfile, score: float) -> float | None:
    """The probability that a document with this score of the vector leg answers the query; None if the index has no
    calibration."""
    calibration = profile.valid_calibration
    return None if calibration is None else logistic(calibration.slope * (score - calibration.middle))


def without_distant(fused: Sequence[RankedHit], profile: IndexProfile, cutoff: float) -> list[RankedHit]:
    """The fused ranking without documents that the vector leg alone found, unless the probability that they answer the
    query is at least `cutoff`. Without a calibration all stay."""
    return [
        hit
        for hit in fused
        if hit.legs.keys() != {"vector"}
        or (probability := confidence(profile, hit.legs["vector"].score)) is None
        or probability >= cutoff
    ]


def first_stage(fused: Sequence[RankedHit]) -> list[RankedHit]:
    """The fused ranking with the scores that its hits carry in an answer."""
    return [replace(hit, score=FUSED_FLOOR + _with_lift(hit.fused_score or 0.0, hit)) for hit in fused]


def lifted(fused: Sequence[RankedHit], lifts: Mapping[Key, float] | None) -> Sequence[RankedHit]:
    """The fused ranking as the application's own boosts change it; None: there are none. Documents of which they say
    nothing get a lift of 0."""
    if lifts is None:
        return fused
    with_lifts = [replace(hit, lift=lifts.get(hit.key, 0.0)) for hit in fused]
    return sorted(with_lifts, key=lambda hit: -_with_lift(hit.fused_score or 0.0, hit))


def _with_lift(share: float, hit: RankedHit) -> float:
    """A share in 0…1 of what a stage can give, and the hit's lift in -1…1, together in 0…1."""
    return share if hit.lift is None else (share + hit.lift + 1) / 3


def pinned(keys: Sequence[Key], rankings: LegRankings) -> list[RankedHit]:
    """Documents that stay before all others, in this order."""
    found_by: dict[Key, dict[str, LegScore]] = {key: {} for key in keys}
    for leg, hits in rankings.items():
        for rank, hit in enumerate(hits, start=1):
            if hit.key in found_by:
                found_by[hit.key][leg] = LegScore(rank, hit.score)
    return [RankedHit(*key, RERANKED_CEILING, legs=found_by[key], pinned=True) for key in keys]


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
        replace(hit, score=floor + (ceiling - floor) * _with_lift(share, hit))
        for hit, share in zip(candidates, shares, strict=True)
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
