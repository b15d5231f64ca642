from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from bridge.profile import RerankSettings
from bridge.records import RankedHit
from bridge.search.reranking import first_stage, rerank, tail_score

FUSED = [RankedHit("docs", doc_id, score, fused_score=score) for doc_id, score in (("a", 0.9), ("b", 0.6), ("c", 0.3))]


def test_order_is_that_of_the_logits() -> None:
    ranked = rerank(FUSED, {("docs", "a"): -3.0, ("docs", "b"): 8.5, ("docs", "c"): 0.0}, RerankSettings(blend=0.0))

    assert [hit.doc_id for hit in ranked] == ["b", "c", "a"]
    assert [hit.rerank_score for hit in ranked] == [8.5, 0.0, -3.0]


def test_documents_that_were_not_read_stay_behind_in_fused_order() -> None:
    ranked = rerank(FUSED, {("docs", "c"): -9.0}, RerankSettings())

    assert [(hit.doc_id, hit.rerank_score) for hit in ranked] == [("c", -9.0), ("a", None), ("b", None)]


def test_ties_keep_their_fused_order() -> None:
    logits = {hit.key: 1.0 for hit in FUSED}

    assert [hit.doc_id for hit in rerank(FUSED, logits, RerankSettings())] == ["a", "b", "c"]


def test_blending_mixes_fused_scores_in() -> None:
    logits = {("docs", "a"): 0.0, ("docs", "b"): 1.0, ("docs", "c"): 0.9}

    assert [hit.doc_id for hit in rerank(FUSED, logits, RerankSettings(blend=0.7))] == ["a", "b", "c"]
    assert [hit.doc_id for hit in rerank(FUSED, logits, RerankSettings(blend=0.0))] == ["b", "c", "a"]


@given(
    st.lists(st.floats(0, 1), min_size=1, max_size=30),
    st.lists(st.floats(-30, 30), max_size=30),
    st.floats(0, 1),
    st.lists(st.floats(0, 1e12), max_size=5),
)
def test_scores_never_rise_from_the_first_hit_to_the_tail(
    fused_scores: list[float], logits: list[float], blend: float, own: list[float]
) -> None:
    descending = enumerate(sorted(fused_scores, reverse=True))
    fused = [RankedHit("docs", str(i), score, fused_score=score) for i, score in descending]
    read = {hit.key: logit for hit, logit in zip(fused, logits, strict=False)}

    ranked = rerank(fused, read, RerankSettings(blend=blend))

    scores = [hit.score for hit in ranked] + [tail_score(score) for score in sorted(own, reverse=True)]
    assert all(low <= high for high, low in pairwise(scores))
    assert {hit.key for hit in ranked} == {hit.key for hit in fused}
    assert [hit.key for hit in first_stage(fused)] == [hit.key for hit in fused]
