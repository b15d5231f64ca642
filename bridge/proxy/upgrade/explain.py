"""What an explained answer tells of each hit and of itself, under `_bridge`."""

from collections.abc import Mapping, Sequence

from bridge.records import Passage, RankedHit


def of_hit(
    hit: RankedHit, *, rank: int, passage: Passage | None, predicted_queries: Sequence[str] = ()
) -> dict[str, object]:
    """Why the document stands at this rank (first is 1): what each leg and stage said of it.

    `predicted_queries` are those that match the user's words. `passage` is what the cross-encoder read where
    the document has several; its offsets count characters of the enriched text (the profile's fields joined).
    """
    told: dict[str, object] = {
        "rank": rank,
        "legs": {leg: {"rank": said.rank, "score": said.score} for leg, said in sorted(hit.legs.items())},
    }
    if predicted_queries:
        told["predicted_queries"] = list(predicted_queries)
    if hit.fused_score is not None:
        told["fused_score"] = hit.fused_score
    if hit.rerank_score is not None:
        told["rerank_score"] = hit.rerank_score
    if hit.cascade_score is not None:
        told["cascade_score"] = hit.cascade_score
    if passage is not None:
        told["passage"] = {"start": passage.start, "end": passage.end, "text": passage.text}
    return told


def of_tail(*, rank: int, own_score: float) -> dict[str, object]:
    """A document beyond the ranking: the application's own query alone put it there."""
    return {"rank": rank, "legs": {}, "tail": True, "own_score": own_score}


def of_answer(stages: str, degraded: Sequence[str], timings_ms: Mapping[str, float]) -> dict[str, object]:
    """What was done, what was left out, and how long each part took."""
    return {
        "stages": stages,
        "degraded": list(degraded),
        "timings_ms": {name: round(duration, 2) for name, duration in timings_ms.items()},
    }
