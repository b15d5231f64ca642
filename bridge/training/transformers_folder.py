"""Reads a transformers folder safely, traces it to a graph, and writes a model folder with its manifest.

Uses `torch.onnx.export(dynamo=False)`, because ONNX Runtime's attention fusion recognises only its graphs.
"""

import json
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec
import torch

from bridge.errors import ModelError
from bridge.models.artifact import TOKENIZER, Kind, Manifest, ModelFolder, names_only, write_manifest

FORBIDDEN_KEYS = ("auto_map", "custom_pipelines", "_attn_implementation", "attn_implementation", "trust_remote_code")
"""Keys of `config.json` that make some transformers versions load code from the folder (CVE-2026-4372)."""

OPSET = 17
MODEL_FILE = "model.onnx"

PARITY_TEXTS = (
    ("how do I sort a list by several keys", "sorted(iterable, key=None): a new sorted list from the items."),
    ("wing", "An experimental study of a wing in a propeller slipstream was made to determine the lift."),
    ("Är det möjligt?", "Unicode — dashes, 数字, emoji 🙂 and a_very_long_identifier_name()."),
)
"""Pairs on which the exported graph must agree with torch."""

MAX_DIFFERENCE = 1e-4
"""Largest difference from torch of any output on `PARITY_TEXTS`; float32 rounding is below 1e-5."""


@dataclass(frozen=True, slots=True)
class Card:
    """Manifest fields that the folder does not contain."""

    name: str
    licence: str
    sources: Sequence[str] = ()
    max_tokens: int = 512
    pooling: Literal["mean", "cls", "max"] = "mean"
    normalise: bool = True
    query_prefix: str = ""
    passage_prefix: str = ""
    languages: Sequence[str] = ()


def checked_configuration(source: Path) -> dict[str, Any]:
    """`config.json` of a transformers folder that names no code and has safe weights.

    Raises:
        ModelError: it is missing, names code to load, or the weights are not safetensors.
    """
    file = source / "config.json"
    try:
        config: dict[str, Any] = json.loads(file.read_bytes())
    except (OSError, ValueError) as error:
        raise ModelError(f"model configuration {file} cannot be read: {error}") from error
    if named := [key for key in FORBIDDEN_KEYS if config.get(key) is not None]:
        raise ModelError(f"model configuration {file} names code to load ({', '.join(named)}): remove these keys")
    for needed in ("model.safetensors", TOKENIZER):
        if not (source / needed).is_file():
            raise ModelError(f"model folder {source} has no {needed}: only safetensors and tokenizer.json are read")
    return config


def trace(model: Any, file: Path, *, inputs: Sequence[str], output: str) -> None:
    """Writes the model's graph, for any number and length of texts; the exporter names `inputs` in the order of its
    `forward`."""
    example = torch.ones((2, 7), dtype=torch.int64)
    torch.onnx.export(
        model,
        (example,) * len(inputs),
        str(file),
        input_names=list(inputs),
        output_names=[output],
        dynamic_axes={name: {0: "batch", 1: "tokens"} for name in inputs} | {output: {0: "batch"}},
        opset_version=OPSET,
        dynamo=False,
    )


def differs(folder: ModelFolder, difference: float) -> ModelError:
    return ModelError(
        f"model {folder.path} differs from torch by {difference:.2g} (at most {MAX_DIFFERENCE:g} is rounding): this "
        f"model's shape is not exported rightly, do not use it"
    )


@contextmanager
def quiet() -> Iterator[None]:
    """Silences the exporter's tracing notes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.getLogger("onnxruntime.transformers").setLevel(logging.ERROR)
        yield


def write_model(
    source: Path, out: Path, card: Card, kind: Kind, files: Sequence[str], *, max_tokens: int | None = None, **own: Any
) -> ModelFolder:
    """Completes `out`, which has `files` already (the main one first), with tokenizer and manifest; `own` adds
    fields."""
    copy_tokenizer(source, out)
    manifest = Manifest(
        kind=kind,
        name=card.name,
        licence=card.licence,
        max_tokens=max_tokens or card.max_tokens,
        files=names_only([*files, TOKENIZER]),
        file=files[0],
        languages=list(card.languages),
        sources=list(card.sources),
        **own,
    )
    return write_manifest(out, manifest)


def copy_tokenizer(source: Path, out: Path) -> None:
    """Copies `tokenizer.json` without indentation, which is a third of the size."""
    (out / TOKENIZER).write_bytes(msgspec.json.encode(msgspec.json.decode((source / TOKENIZER).read_bytes())))
