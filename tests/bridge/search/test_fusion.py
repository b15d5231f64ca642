import math
from collections.abc import Sequence
from typing import Any, Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.profile import (
    SPARSE_WEIGHTS,
    Calibration,
    FusionSettings,
    IndexProfile,
    Measurement,
    ModelReference,
    SparseSettings,
    Stage,
)
from bridge.records import Hit, RankedHit, Smoothed
from bridge.search.fusion import N_SMOOTHED, blended, confidence, diversify, fuse, leg_weights, minmax, without_distant

METHODS: list[Literal["rrf", "minmax", "zscore"]] = ["rrf", "minmax", "zscore"]


def leg(*scored: tuple[str, float]) -> list[Hit]:
    return [Hit("docs", doc_id, score) for doc_id, score in scored]


def settings(method: Literal["rrf", "minmax", "zscore"] = "rrf", **weights: float) -> FusionSettings:
    return FusionSettings(method=method, k=60, weights=weights)


def ids(rankings: dict[str, list[Hit]], chosen: FusionSettings, window: int = 100) -> list[str]:
    return [hit.doc_id for hit in fuse(rankings, chosen, window=window)]


CALIBRATED = IndexProfile(
    text_fields=["title"],
    encoder=ModelReference("toy", "0" * 12),
    dimension=4,
    calibration=Calibration(20.0, 0.7, "toy@" + "0" * 12, 1, 0.9, 0.8, 1.0, 148, Measurement("", 40, "AUC", "")),
)


def test_confidence_rises_with_the_score_from_a_half_at_the_middle() -> None:
    probabilities = [confidence(CALIBRATED, score) or 0.0 for score in (-1e9, 0.6, 0.7, 0.8, 1e9)]
    assert probabilities == sorted(probabilities)
    assert [round(each, 6) for each in probabilities[::2]] == [0.0, 0.5, 1.0]
    assert confidence(msgspec.structs.replace(CALIBRATED, calibration=None), 0.8) is None


def test_only_distant_documents_that_vectors_alone_found_are_left_out() -> None:
    rankings = {
        "text": leg(("far, with words", 3.0)),
        "vector": leg(("near", 0.8), ("far", 0.5), ("far, with words", 0.5)),
    }
    fused = fuse(rankings, settings(text=1, vector=1), window=10)
    assert {hit.doc_id for hit in without_distant(fused, CALIBRATED, 0.5)} == {"near", "far, with words"}
    assert without_distant(fused, msgspec.structs.replace(CALIBRATED, calibration=None), 0.5) == fused


def test_reciprocal_ranks_are_those_of_the_paper() -> None:
    rankings = {"a": leg(("x", 9), ("y", 8)), "b": leg(("y", 0.2), ("z", 0.1))}

    fused = {hit.doc_id: hit.fused_score for hit in fuse(rankings, settings(a=1, b=1), window=10)}

    scale = 61 / 2  # weighted mean, rank 1 = 1
    assert fused == pytest.approx(
        {"x": scale / 61, "y": scale * (1 / 62 + 1 / 61), "z": scale / 62},
    )


def test_minmax_weighs_stretched_scores() -> None:
    rankings = {"a": leg(("x", 10), ("y", 5), ("z", 0)), "b": leg(("z", 0.9), ("y", 0.5))}

    fused = fuse(rankings, settings("minmax", a=3, b=1), window=10)

    assert {hit.doc_id: hit.fused_score for hit in fused} == pytest.approx(
        {"x": 0.75, "y": 0.375 + 0.25 * 5 / 9, "z": 0.25}
    )


@pytest.mark.parametrize("method", METHODS)
def test_the_only_hit_of_a_leg_stands_above_documents_that_it_lacks(method: Literal["rrf", "minmax", "zscore"]) -> None:
    rankings = {"a": leg(("found", 3.0)), "b": leg(("a", 1.9), ("found", 1.9), ("y", 1.5))}

    assert ids(rankings, settings(method, a=1, b=1))[0] == "found"


@pytest.mark.parametrize("method", METHODS)
def test_the_last_hit_of_a_short_leg_stands_above_documents_that_it_lacks(
    method: Literal["rrf", "minmax", "zscore"],
) -> None:
    rankings = {"a": leg(("first", 3.0), ("last", 1.0)), "b": leg(("x", 1.9), ("z", 1.0), ("last", 1.0))}

    order = ids(rankings, settings(method, a=1, b=1))

    assert order.index("last") < order.index("z")


@pytest.mark.parametrize("method", METHODS)
def test_documents_found_by_one_leg_stay(method: Literal["rrf", "minmax", "zscore"]) -> None:
    rankings = {"a": leg(("x", 2), ("y", 1)), "b": leg(("z", 5), ("w", 4))}

    assert set(ids(rankings, settings(method, a=1, b=1))) == {"x", "y", "z", "w"}


def test_a_leg_without_weight_moves_nothing_and_is_told() -> None:
    rankings = {"a": leg(("x", 2), ("y", 1)), "told": leg(("y", 9), ("z", 8))}

    fused = fuse(rankings, settings(a=1), window=10)

    assert [hit.doc_id for hit in fused] == ["x", "y"]
    assert fused[1].legs["told"].rank == 1


def test_ties_are_broken_by_key_whatever_the_order_of_legs() -> None:
    one = {"a": leg(("x", 1)), "b": leg(("y", 1))}
    other = {"b": leg(("y", 1)), "a": leg(("x", 1))}

    assert ids(one, settings(a=1, b=1)) == ids(other, settings(a=1, b=1)) == ["x", "y"]


def test_nothing_found_is_an_empty_ranking() -> None:
    assert fuse({"a": []}, settings("zscore", a=1), window=10) == []
    assert fuse({}, settings(), window=10) == []


_legs = st.dictionaries(
    st.sampled_from(["lexical", "expansion", "vector"]),
    st.lists(
        st.tuples(st.sampled_from("abcdefghij"), st.floats(0, 1e9)), max_size=10, unique_by=lambda scored: scored[0]
    ).map(lambda scored: leg(*sorted(scored, key=lambda pair: -pair[1]))),
)


@given(_legs, st.sampled_from(METHODS), st.integers(1, 12))
def test_a_fused_ranking_is_sorted_unique_bounded_and_stable(
    rankings: dict[str, list[Hit]], method: Literal["rrf", "minmax", "zscore"], window: int
) -> None:
    chosen = settings(method, lexical=0.5, expansion=1, vector=2)

    fused = fuse(rankings, chosen, window=window)

    scores = [hit.score for hit in fused]
    assert scores == sorted(scores, reverse=True)
    assert all(-1e-9 <= score <= 1 + 1e-9 for score in scores)
    found = {hit.key for ranking in rankings.values() for hit in ranking}
    assert len({hit.key for hit in fused}) == len(fused) == min(window, len(found))
    assert fused == fuse(dict(reversed(rankings.items())), chosen, window=window)


@pytest.mark.case("R29")
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("low", [-1.7e308, -5.0, 0.0, 1.6e308])
def test_scores_of_any_finite_size_fuse_to_finite_ones(method: Literal["rrf", "minmax", "zscore"], low: float) -> None:
    rankings = {"a": leg(("x", 1.7e308), ("y", 1.65e308), ("z", low)), "b": leg(("x", 3.0), ("y", 2.0))}

    fused = fuse(rankings, settings(method, a=1, b=1), window=3)

    assert [hit.doc_id for hit in fused] == ["x", "y", "z"]
    assert all(0 <= hit.score <= 1 for hit in fused)


@pytest.mark.case("R29")
@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=20), st.floats(0, 1))
def test_finite_scores_stretch_to_0_and_1_in_their_order(scores: list[float], weight: float) -> None:
    stretched = minmax(scores)

    assert all(0 <= value <= 1 for value in stretched)
    assert sorted(stretched) == [value for _, value in sorted(zip(scores, stretched, strict=True))]
    assert all(0 <= value <= 1 + 1e-9 for value in blended(scores, scores, weight))


def test_minmax_of_equal_scores_is_one() -> None:
    assert minmax([3.0, 3.0]) == [1.0, 1.0]
    assert minmax([]) == []


PROFILE = IndexProfile(
    text_fields=["body"],
    encoder=ModelReference("encoder", "0" * 12),
    generator=ModelReference("generator", "0" * 12),
    dimension=8,
)


SPARSE = SparseSettings(ModelReference("sparse", "0" * 12))
THREE = FusionSettings(weights={"expansion": 0.4, "vector": 0.4, "sparse": 0.2})
ONLY_WEIGHED = {"sparse": SPARSE, "vector_type": "none", "fusion": FusionSettings(weights=SPARSE_WEIGHTS)}


@pytest.mark.parametrize(
    ("changes", "stage", "weights"),
    [
        ({}, "expansion", {"expansion": 1.0}),
        ({}, "vector", {"vector": 1.0}),
        ({}, "hybrid", {"expansion": 1.0, "vector": 1.0}),
        ({}, "cascade", {"expansion": 1.0, "vector": 1.0}),
        ({"generator": None}, "rerank", {"lexical": 1.0, "vector": 1.0}),
        ({"vector_type": "none"}, "hybrid", {"expansion": 1.0}),
        ({"vector_type": "none"}, "vector", {"expansion": 1.0}),
        ({"fusion": FusionSettings(weights={"vector": 0.0})}, "hybrid", {"expansion": 1.0}),
        ({"sparse": SPARSE}, "hybrid", {"expansion": 1.0, "vector": 1.0}),
        ({"sparse": SPARSE}, "sparse", {"sparse": 1.0}),
        ({"sparse": SPARSE, "fusion": THREE}, "rerank", {"expansion": 0.4, "vector": 0.4, "sparse": 0.2}),
        ({"fusion": THREE}, "rerank", {"expansion": 0.4, "vector": 0.4}),
        ({"fusion": THREE}, "sparse", {"expansion": 0.4, "vector": 0.4}),
        (ONLY_WEIGHED, "hybrid", {"expansion": 0.6, "sparse": 0.4}),
        (ONLY_WEIGHED | {"generator": None}, "rerank", {"lexical": 0.6, "sparse": 0.4}),
        (ONLY_WEIGHED, "expansion", {"expansion": 1.0}),
        (ONLY_WEIGHED, "vector", {"expansion": 0.6, "sparse": 0.4}),
    ],
)
def test_legs_weigh_as_stage_and_profile_say(changes: dict[str, Any], stage: Stage, weights: dict[str, float]) -> None:
    assert leg_weights(msgspec.structs.replace(PROFILE, **changes), stage) == weights


@pytest.mark.parametrize(
    ("weight", "expected"), [(0.0, [0.0, 0.5, 1.0]), (1.0, [1.0, 0.0, 0.25]), (0.5, [0.5, 0.25, 0.625])]
)
def test_blending_weighs_scores_of_any_scale(weight: float, expected: list[float]) -> None:
    assert blended([-4.0, 0.0, 4.0], [500.0, 100.0, 200.0], weight) == pytest.approx(expected)


def smoothed(codes: dict[str, bytes], share: float = 0.5, **scores: float) -> dict[str, float | None]:
    chosen = FusionSettings(method="minmax", weights={"a": 1.0}, smoothing=share)
    of_keys = {("docs", doc_id): code for doc_id, code in codes.items()}
    fused = fuse({"a": leg(*scores.items())}, chosen, window=len(scores), codes=of_keys)
    assert fused == sorted(fused, key=lambda hit: -hit.score)
    return {hit.doc_id: hit.fused_score for hit in fused}


def test_a_document_beyond_the_window_is_no_neighbour_even_if_it_is_kept() -> None:
    """So a collapsed search, which keeps all, ranks the window as one that is not collapsed."""
    hits = leg(("v", 4.0), ("w", 3.0), ("x", 2.0), ("y", 1.0))
    codes = {("docs", doc_id): bytes([0b11110000]) for doc_id in "vwxy"}
    settings = FusionSettings(method="minmax", weights={"a": 1.0}, smoothing=0.5)
    cut, kept = (fuse({"a": hits}, settings, window=3, codes=codes, cut=cut) for cut in (True, False))
    assert len(kept) == 4
    assert {hit.key: hit.score for hit in cut} == {hit.key: hit.score for hit in kept[:3]}


def test_a_smoothed_score_is_a_mean_of_the_documents_own_and_its_neighbours_by_their_nearness() -> None:
    """Of 8 signs w shares 8 with v (cosine 1) and 6 with x (45 degrees, weight 1/8), and y is opposite to all."""
    codes = {"v": b"\xff", "w": b"\xff", "x": b"\xfc", "y": b"\x00"}
    found = smoothed(codes, v=1.0, w=0.5, x=0.25, y=0.0)
    assert found == pytest.approx(
        {
            "v": 0.5 * 1.0 + 0.5 * (0.5 + 0.25 / 8) / (1 + 1 / 8),
            "w": 0.5 * 0.5 + 0.5 * (1.0 + 0.25 / 8) / (1 + 1 / 8),
            "x": 0.5 * 0.25 + 0.5 * (1.0 + 0.5) / 2,
            "y": 0.0,
        }
    )


def ranked_hits(*scored: tuple[str, float], **more: Any) -> list[RankedHit]:
    return [RankedHit("docs", doc_id, score, **more) for doc_id, score in scored]


CODES = {("docs", doc_id): code for doc_id, code in {"v": b"\xff", "w": b"\xff", "x": b"\xfc", "y": b"\x00"}.items()}
"""Of 8 signs w shares 8 with v (cosine 1) and 6 with x (45 degrees), and y is opposite to all."""
NEARER = CODES | {("docs", "x"): b"\xfe"}
"""x shares 7 signs with v and w (22.5 degrees)."""


def places(hits: Sequence[RankedHit]) -> str:
    return "".join(hit.doc_id for hit in hits)


def test_a_diverse_ranking_weighs_a_document_against_its_likeness_to_those_before_it() -> None:
    hits = ranked_hits(("v", 2.0), ("w", 1.75), ("x", 1.5), ("y", 1.0))
    apart = diversify(hits, NEARER, 0.5, reranked=4)
    # After v: w gives 0.75 - 1, x 0.5 - 0.28, y 0 - 0.
    assert places(apart) == "vxyw"
    assert [hit.nearest_above for hit in apart] == pytest.approx([0.0, math.cos(math.pi / 8), 0.0, 1.0])
    assert [hit.score for hit in apart] == [2.0, 1.75, 1.5, 1.0]
    assert places(diversify(hits, NEARER, 0.1, reranked=4)) == "vwxy"
    assert places(diversify(hits[:3], NEARER, 0.5, reranked=4, before=[("docs", "y")])) == "vxw"
    assert places(diversify(hits[1:], NEARER, 0.6, reranked=4, before=[("docs", "v")])) == "xyw"


def test_a_document_without_a_code_is_like_no_other() -> None:
    hits = ranked_hits(("v", 2.0), ("z", 1.5), ("w", 1.5), ("y", 1.0))
    assert places(diversify(hits, NEARER, 0.5, reranked=4)) == "vzyw"
    assert diversify(hits, {}, 0.5, reranked=4) == hits


def test_what_a_later_stage_ranked_stays_first_and_later_pages_do_not_depend_on_it() -> None:
    read = ranked_hits(("v", 3.0), ("w", 2.0), rerank_score=1.0)
    others = ranked_hits(("x", 1.75), ("y", 1.5))
    assert places(diversify([*read, *others], NEARER, 0.9, reranked=2)) == "vwyx"
    fused = ranked_hits(("w", 1.9), ("v", 1.8), ("x", 1.75), ("y", 1.5))
    assert places(diversify(fused, NEARER, 0.9, reranked=2)) == "wvyx"


def test_a_document_without_a_code_is_neither_smoothed_nor_a_neighbour() -> None:
    assert smoothed({"x": b"\xff", "z": b"\xff"}, x=1.0, y=0.5, z=0.0) == {"x": 0.5, "y": 0.5, "z": 0.5}
    assert smoothed({"x": b"\xff"}, x=1.0, y=0.5, z=0.0) == {"x": 1.0, "y": 0.5, "z": 0.0}


def test_only_the_first_documents_are_smoothed() -> None:
    scores = {f"d{n:03}": 100.0 - n for n in range(N_SMOOTHED + 2)}
    plain, found = smoothed({}, **scores), smoothed(dict.fromkeys(scores, b"\xff"), **scores)
    assert [doc_id for doc_id in scores if plain[doc_id] == found[doc_id]] == list(scores)[N_SMOOTHED:]


def test_a_smoothed_hit_tells_what_it_was_before_and_what_each_neighbour_has_in_it() -> None:
    chosen = FusionSettings(method="minmax", weights={"a": 1.0}, smoothing=0.25)
    codes = {("docs", doc_id): b"\xff" for doc_id in "xy"}
    [first, second] = fuse({"a": leg(("x", 1.0), ("y", 0.0))}, chosen, window=2, codes=codes)
    assert (first.fused_score, first.smoothed) == (0.75, Smoothed(1.0, {("docs", "y"): 0.25}))
    assert (second.fused_score, second.smoothed) == (0.25, Smoothed(0.0, {("docs", "x"): 0.25}))
