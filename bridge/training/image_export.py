"""Exports a dual encoder of texts and pictures (CLIP, as transformers has it) to a folder with float32 weights."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import CLIPModel

from bridge.errors import ModelError
from bridge.models.artifact import ModelFolder, PictureInput, Resampling
from bridge.models.hub import PREPROCESSOR_CONFIGURATION as PREPROCESSOR
from bridge.models.image_encoder import INPUT
from bridge.models.session import Session
from bridge.models.tokenization import INPUT_NAMES, load_tokenizer
from bridge.training.export import load_transformer
from bridge.training.transformers_folder import (
    MAX_DIFFERENCE,
    MODEL_FILE,
    OPSET,
    PARITY_TEXTS,
    Card,
    checked_configuration,
    differs,
    quiet,
    write_model,
)

_ARCHITECTURE = "CLIPModel"
_RESAMPLING: tuple[Resampling, ...] = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")
"""Pillow's names, by its numbers."""

_PARITY_PICTURES = 3


class _Texts(torch.nn.Module):  # type: ignore[misc]  # torch is untyped here
    """The tower for texts, up to the common space. Without a mask: texts come one by one."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self._model = model

    def forward(self, input_ids: Any) -> Any:
        return self._model.text_projection(self._model.text_model(input_ids)[1])


class _Pictures(torch.nn.Module):  # type: ignore[misc]
    """The tower for pictures, up to the common space."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self._model = model

    def forward(self, pixel_values: Any) -> Any:
        return self._model.visual_projection(self._model.vision_model(pixel_values)[1])


def export_image_encoder(source: Path, out: Path, card: Card) -> ModelFolder:
    """Exports both towers to `out`: ids → (n_texts, dimension), pixels → (n_pictures, dimension), float32.

    Raises:
        ModelError: the source cannot be read safely, is of another shape, or a graph disagrees with torch.
    """
    config = checked_configuration(source)
    if config.get("architectures") != [_ARCHITECTURE]:
        raise ModelError(f"model {source} is of {config.get('architectures')}, an image encoder of {_ARCHITECTURE}")
    pictures = picture_input(source, config)
    model = load_transformer(CLIPModel, source)
    out.mkdir(parents=True, exist_ok=True)
    texts, pixels = torch.ones((2, 7), dtype=torch.int64), torch.zeros((2, 3, pictures.side, pictures.side))
    with quiet():
        _trace(_Texts(model), texts, out / MODEL_FILE, "input_ids", {0: "texts", 1: "tokens"})
        _trace(_Pictures(model), pixels, out / pictures.file, INPUT, {0: "pictures"})
    folder = write_model(
        source,
        out,
        card,
        "image_encoder",
        [MODEL_FILE, pictures.file],
        max_tokens=min(card.max_tokens, model.config.text_config.max_position_embeddings),
        dimension=model.config.projection_dim,
        pictures=pictures,
        query_prefix=card.query_prefix,
    )
    _check_parity(model, folder, pictures)
    return folder


def picture_input(source: Path, config: dict[str, Any]) -> PictureInput:
    """How the model takes pictures, from the preprocessor's configuration and the model's own.

    Raises:
        ModelError: there is none, or it prepares pictures in a way that is not known here.
    """
    file = source / PREPROCESSOR
    try:
        read: dict[str, Any] = json.loads(file.read_bytes())
        side = int(config.get("vision_config", {}).get("image_size", 224))  # 224 is what transformers leaves out
        shorter = read["size"] if isinstance(read["size"], int) else read["size"].get("shortest_edge")
        crop = read.get("crop_size", side)
        cropped = crop if isinstance(crop, int) else crop["height"]
        if not read.get("do_center_crop", True):
            shorter, cropped = None, side
        if cropped != side or read.get("rescale_factor", 1 / 255) != 1 / 255:
            raise ModelError(
                f"model {source}: {PREPROCESSOR} gives pictures of {cropped} pixels a side, scaled by "
                f"{read.get('rescale_factor')}, and the model takes {side}, scaled by 1/255: correct one of the files"
            )
        share = None if shorter is None else cropped / shorter
        resample = _RESAMPLING[read.get("resample", 3)]
        return PictureInput(side, read["image_mean"], read["image_std"], share, resample)
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise ModelError(
            f"model {source}: {PREPROCESSOR} does not say how the model takes pictures ({error!r}): take it from where "
            f"the model comes from"
        ) from error


def _trace(tower: Any, example: Any, file: Path, name: str, free: dict[int, str]) -> None:
    torch.onnx.export(
        tower.eval(),
        (example,),
        str(file),
        input_names=[name],
        output_names=["embedding"],
        dynamic_axes={name: free, "embedding": {0: free[0]}},
        opset_version=OPSET,
        dynamo=False,
    )


def _check_parity(model: Any, folder: ModelFolder, pictures: PictureInput) -> None:
    tokenizer = load_tokenizer(folder)
    of_texts = Session(folder.model_file, inputs=INPUT_NAMES)
    of_pictures = Session(folder.path / pictures.file, inputs=frozenset({INPUT}))
    chance = np.random.default_rng(1)
    shape = (1, 3, pictures.side, pictures.side)
    with torch.inference_mode():
        compared = [
            (of_texts.run(arrays), model.get_text_features(torch.from_numpy(arrays["input_ids"])))
            for arrays in tokenizer.sequences([text for pair in PARITY_TEXTS for text in pair])
        ]
        for _ in range(_PARITY_PICTURES):
            pixels = chance.normal(size=shape).astype(np.float32)
            compared.append((of_pictures.run({INPUT: pixels}), model.get_image_features(torch.from_numpy(pixels))))
    # Towers do not give unit vectors: a difference counts beside their length.
    difference = max(
        float(np.abs(found - wanted.numpy()).max() / max(1, np.abs(found).max())) for found, wanted in compared
    )
    if difference > MAX_DIFFERENCE:
        raise differs(folder, difference)
