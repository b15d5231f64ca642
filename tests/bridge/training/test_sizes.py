"""Presets of a run."""

import pytest

pytest.importorskip("torch", reason="training needs the train extra")
pytest.importorskip("transformers", reason="training needs the train extra")
pytest.importorskip("bm25s", reason="training needs the train extra")

from bridge.training.sizes import HELD_OUT_QUERIES, SIZES, Size


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_a_run_is_watched_only_on_queries_that_are_never_trained_on(size: Size) -> None:
    assert size.watched_queries <= HELD_OUT_QUERIES


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_every_preset_mines_enough_negatives_for_its_lists(size: Size) -> None:
    assert size.mining_depth >= size.taught_per_kind
    assert 2 * size.mining_depth >= size.ranking.negatives


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_warm_up_ends_before_the_learning_rate_falls(size: Size) -> None:
    for loop in (size.ranking_loop, size.embedding_loop, size.generation_loop):
        assert loop.warmup_steps < loop.total_steps * (1 - loop.cooldown_share)
