"""What two cross-encoders' scores become."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.search.cascade import merge_scores, select_for_large_model

FINITE = st.floats(-20, 20)


@pytest.mark.parametrize(
    ("depth", "top_n", "margin", "expected"),
    [
        (3, None, None, [1, 3, 0]),
        (9, None, None, [1, 3, 0, 2, 4]),
        (5, 1, 2.0, [1, 3]),
        (5, 2, 2.0, [1, 3, 0]),
        (5, 1, 0.0, [1]),
        (5, 1, None, [1, 3, 0, 2, 4]),
        (5, None, 0.0, [1, 3, 0, 2, 4]),
        (2, 3, 0.0, [1, 3]),
    ],
)
def test_the_best_go_on_as_deep_as_asked_and_no_further_than_the_margin(
    depth: int, top_n: int | None, margin: float | None, expected: list[int]
) -> None:
    assert select_for_large_model([1.0, 5.0, 0.5, 3.0, -4.0], depth=depth, top_n=top_n, margin=margin) == expected


def test_what_is_known_beside_the_scores_decides_who_goes_on_but_not_the_margin() -> None:
    scores = [1.0, 5.0, 0.5, 3.0, -4.0]
    assert select_for_large_model(scores, depth=3, preferences=[9, 8, 7, 6, 5]) == [0, 1, 2]
    assert select_for_large_model(scores, depth=3, preferences=[9, 8, 7, 6, 5], top_n=1, margin=4.0) == [0, 1]


def test_equal_scores_go_on_in_the_order_given() -> None:
    assert select_for_large_model([1.0, 1.0, 1.0], depth=2) == [0, 1]


@given(first=st.lists(FINITE, min_size=1, max_size=30), depth=st.integers(1, 40), data=st.data())
def test_what_the_large_model_read_comes_first_and_the_rest_keeps_the_small_ones_order(
    first: list[float], depth: int, data: st.DataObject
) -> None:
    chosen = select_for_large_model(first, depth=depth)
    second = {index: data.draw(FINITE) for index in chosen}
    scores = merge_scores(first, second)
    rest = [index for index in range(len(first)) if index not in second]
    assert {index: scores[index] for index in chosen} == second
    assert all(scores[index] < min(second.values()) for index in rest)
    assert all(scores[one] >= scores[other] for one in rest for other in rest if first[one] >= first[other])


def test_what_was_not_read_stays_as_far_apart_as_the_small_model_puts_it() -> None:
    assert merge_scores([3.0, 2.0, 0.5], {0: 10.0}) == [10.0, 9.0, 7.5]


@pytest.mark.case("R29")
@pytest.mark.parametrize(
    ("first", "second"),
    [
        ([1e308, -1e308, 1.0], {0: 1e308}),
        ([1.0, 1e308, -1e308], {0: -1.7e308}),
        ([2.0, 1.0, 0.5], {0: 1e308, 1: -1e308}),
        ([3e38, 1e38, -3e38], {0: -3e38}),
    ],
)
def test_scores_of_any_finite_size_merge_to_finite_ones_in_order(first: list[float], second: dict[int, float]) -> None:
    scores = merge_scores(first, second)

    assert all(map(math.isfinite, scores))
    read = sorted(second, key=lambda index: -second[index])
    rest = sorted(set(range(3)) - second.keys(), key=lambda index: -first[index])
    assert sorted(range(3), key=lambda index: -scores[index]) == [*read, *rest]
    assert len(set(scores)) == 3
