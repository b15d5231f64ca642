"""Trains, exports and quantises a model from mined candidates; each step once per folder."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import msgspec

from bridge.models.artifact import MANIFEST, ModelFolder, read_folder
from bridge.training.data import LabelledPair
from bridge.training.encoder import Pooling
from bridge.training.export import export_cross_encoder, export_encoder
from bridge.training.quantization import quantize_folder
from bridge.training.recipes import TrainingData, train_cross_encoder, train_encoder
from bridge.training.sizes import SHAPES, SIZES, Size
from bridge.training.token_pruning import FEWEST_LAYERS, KEPT_SHARE
from bridge.training.transformers_folder import Card, checked_configuration

Kind = Literal["encoder", "cross_encoder"]

_CALIBRATION_PAIRS = 128
_SEED = 1


class Recipe(msgspec.Struct, frozen=True):
    """How a model is made. `base`: a BERT in transformers' layout, for both kinds; `rerank_base`: a trained
    cross-encoder of the same shape to start from. `minutes`: training time per model."""

    base: str
    rerank_base: str | None
    pooling: Pooling
    size: str
    minutes: float
    licence: str

    def preset(self) -> Size:
        """The size, with its time limit."""
        return SIZES[self.size].within(self.minutes)


def make(
    kind: Kind, recipe: Recipe, folder: Path, pairs: Sequence[LabelledPair], *, index: str, max_tokens: int
) -> ModelFolder:
    """The int8 model trained on the candidates in `folder`/`kind`; `pairs` calibrate its int8 ranges.

    Raises:
        ModelError: the exporter does not know the base's shape.
        UsageError: there are too few training pairs.
    """
    out = folder / f"{kind}-int8"
    if not (out / MANIFEST).exists():
        trained = _train(kind, recipe, folder / kind)
        name = kind.replace("_", "-")
        card = Card(
            name=f"{index}-{name}",
            licence=recipe.licence,
            sources=[f"{Path(recipe.base).name}, adapted to the documents of index {index}"],
            max_tokens=max_tokens,
            pooling=recipe.pooling if kind == "encoder" else "mean",
        )
        export = export_encoder if kind == "encoder" else export_cross_encoder
        exact = export(trained, folder / f"{kind}-float", card)
        step = max(1, len(pairs) // _CALIBRATION_PAIRS)
        seen = [(pair.query, pair.passage) for pair in pairs[::step]][:_CALIBRATION_PAIRS]
        can_prune = kind == "cross_encoder" and checked_configuration(trained)["num_hidden_layers"] >= FEWEST_LAYERS
        keep_tokens = KEPT_SHARE if can_prune else 1.0
        made = quantize_folder(exact, folder / f"{kind}-int8.partial", seen, keep_tokens=keep_tokens)
        shutil.move(made.path, out)
    return read_folder(out)


def _train(kind: Kind, recipe: Recipe, run: Path) -> Path:
    """Trains on the candidates and logits that are already in the run's folder; see `bridge.training.run_folder`."""
    base, size = Path(recipe.base), recipe.preset()
    nothing_more = TrainingData(pairs=[], collections=[], watched=[])
    if kind == "encoder":
        return train_encoder(
            base, nothing_more, size, run, pooling=recipe.pooling, teachers=[], seed=_SEED, resume=True
        )
    start = Path(recipe.rerank_base) if recipe.rerank_base else None
    return train_cross_encoder(
        base, nothing_more, size, run, shape=SHAPES["base"], teachers=[], start=start, seed=_SEED, resume=True
    )
