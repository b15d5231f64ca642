from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.profile import CascadeSettings, PassageScores, RerankSettings
from bridge.records import RankedHit
from bridge.search.fusion import cascade, first_stage, of_passages, rerank, tail_score

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


@pytest.mark.case("R29")
@pytest.mark.parametrize("order", [rerank, cascade])
def test_logits_of_any_finite_size_give_scores(
    order: Callable[..., list[RankedHit]],
) -> None:
    logits = {("docs", "a"): -1e308, ("docs", "b"): 1e308, ("docs", "c"): 0.0}

    ranked = order(FUSED, logits, RerankSettings(blend=0.0))

    assert [hit.doc_id for hit in ranked] == ["b", "c", "a"]
    assert all(2 <= hit.score <= 3 for hit in ranked)


def test_what_the_large_model_read_stays_before_what_the_small_one_read() -> None:
    fused = [
        RankedHit("docs", doc_id, 1.0, fused_score=score)
        for doc_id, score in zip("abcde", (9, 7, 5, 3, 1), strict=True)
    ]
    scores = {("docs", "b"): -8.0, ("docs", "c"): -2.0, ("docs", "d"): -1.0, ("docs", "e"): -9.0}

    ranked = cascade(fused, scores, RerankSettings(blend=0.0, cascade=CascadeSettings(depth=2)))

    assert [(hit.doc_id, hit.rerank_score, hit.cascade_score) for hit in ranked] == [
        ("d", -1.0, None),
        ("c", -2.0, None),
        ("b", None, -8.0),
        ("e", None, -9.0),
        ("a", None, None),
    ]


@pytest.mark.parametrize(("how", "expected"), [("max", 2.0), ("mean", 0.5 * (0.5 + 0.880797)), ("sum", 0.5 + 0.880797)])
def test_the_scores_of_passages_become_one(how: PassageScores, expected: float) -> None:
    assert of_passages([0.0, 2.0], how) == pytest.approx(expected, abs=1e-6)
    assert of_passages([-1e9], how) == (-1e9 if how == "max" else pytest.approx(0.0))


def test_fused_scores_move_documents_inside_their_group_alone() -> None:
    fused = [
        RankedHit("docs", doc_id, 1.0, fused_score=score) for doc_id, score in zip("abcd", (9, 7, 5, 3), strict=True)
    ]
    scores = {("docs", "a"): 1.0, ("docs", "b"): 2.0, ("docs", "c"): 8.0, ("docs", "d"): 9.0}

    ranked = cascade(fused, scores, RerankSettings(blend=1.0, cascade=CascadeSettings(depth=2)))

    assert [hit.doc_id for hit in ranked] == ["c", "d", "a", "b"]


@given(
    st.lists(st.floats(0, 1), min_size=1, max_size=30),
    st.lists(st.floats(-30, 30), max_size=30),
    st.floats(0, 1),
    st.lists(st.floats(0, 1e12), max_size=5),
    st.sampled_from([rerank, cascade]),
)
def test_scores_never_rise_from_the_first_hit_to_the_tail(
    fused_scores: list[float],
    logits: list[float],
    blend: float,
    own: list[float],
    order: Callable[..., list[RankedHit]],
) -> None:
    descending = enumerate(sorted(fused_scores, reverse=True))
    fused = [RankedHit("docs", str(i), score, fused_score=score) for i, score in descending]
    read = {hit.key: logit for hit, logit in zip(fused, logits, strict=False)}

    ranked = order(fused, read, RerankSettings(blend=blend, cascade=CascadeSettings(depth=3)))

    scores = [hit.score for hit in ranked] + [tail_score(score) for score in sorted(own, reverse=True)]
    assert all(low <= high for high, low in pairwise(scores))
    assert {hit.key for hit in ranked} == {hit.key for hit in fused}
    assert [hit.key for hit in first_stage(fused)] == [hit.key for hit in fused]
