"""A fused ranking and a cross-encoder's scores → the final ranking. Pure: the proxy calls the sidecar.

The `score` of a hit tells which stage ranked it: 2…3 the cross-encoder, 1…2 the fusion, 0…1 the tail in
the application's own order. So it never rises down the ranking, on no page.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from bridge.profile import RerankSettings
from bridge.records import RankedHit
from bridge.search.fusion import minmax

FUSED_FLOOR = 1.0
RERANKED_FLOOR = 2.0

Key = tuple[str, str]
"""Index and `_id` of a document."""


def first_stage(fused: Sequence[RankedHit]) -> list[RankedHit]:
    """The fused ranking with the scores that its hits carry in an answer."""
    return [replace(hit, score=FUSED_FLOOR + (hit.fused_score or 0.0)) for hit in fused]


def rerank(fused: Sequence[RankedHit], logits: Mapping[Key, float], settings: RerankSettings) -> list[RankedHit]:
    """Orders the documents that have a logit by it, before all others, which keep their fused order.

    Where `blend` is not zero, the order is by `(1 - blend) × logit + blend × fused score`, both stretched
    to 0…1 over these documents. Ties keep their fused order.
    """
    candidates = [hit for hit in fused if hit.key in logits]
    rest = [hit for hit in fused if hit.key not in logits]
    by_model = minmax([logits[hit.key] for hit in candidates])
    by_fusion = minmax([hit.fused_score or 0.0 for hit in candidates])
    scored = [
        replace(
            hit,
            score=RERANKED_FLOOR + (1 - settings.blend) * model + settings.blend * fusion,
            rerank_score=logits[hit.key],
        )
        for hit, model, fusion in zip(candidates, by_model, by_fusion, strict=True)
    ]
    return [*sorted(scored, key=lambda hit: -hit.score), *first_stage(rest)]


def tail_score(own_score: float) -> float:
    """The score in an answer of a document beyond the ranking, from the application's own score ≥ 0."""
    return own_score / (1 + own_score) if own_score > 0 else 0.0
