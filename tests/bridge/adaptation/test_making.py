"""A recipe bounds the time of training, and a model is made once per folder."""

from pathlib import Path

import pytest

pytest.importorskip("torch", reason="training needs the train extra")
pytest.importorskip("transformers", reason="training needs the train extra")

from collections.abc import Callable

from bridge.adaptation.making import Kind, Recipe, make
from bridge.models.artifact import ModelFolder
from bridge.training.sizes import SIZES
from tests.toys import make_toy_cross_encoder, make_toy_encoder

RECIPE = Recipe("no-such-base", None, "mean", "smoke", 2.5, "Apache-2.0")


def test_each_model_is_trained_for_the_recipes_minutes() -> None:
    preset = RECIPE.preset()
    assert (preset.ranking_loop.time_limit_s, preset.embedding_loop.time_limit_s) == (150.0, 150.0)
    assert preset.mining_depth == SIZES["smoke"].mining_depth


@pytest.mark.parametrize(("kind", "toy"), [("encoder", make_toy_encoder), ("cross_encoder", make_toy_cross_encoder)])
def test_a_model_that_is_there_is_not_made_again(
    kind: Kind, toy: Callable[[Path], ModelFolder], tmp_path: Path
) -> None:
    """Its base does not even exist."""
    there = toy(tmp_path / f"{kind}-int8")
    made = make(kind, RECIPE, tmp_path, [], index="shop", max_tokens=32)
    assert (made.path, made.identity) == (there.path, there.identity)
