"""A transformers folder to export: that it can be read safely, and what it does not say of its model."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec

from bridge.errors import ModelError
from bridge.models.artifact import TOKENIZER

FORBIDDEN_KEYS = ("auto_map", "custom_pipelines", "_attn_implementation", "attn_implementation", "trust_remote_code")
"""Keys of `config.json` by which some transformers versions load code that the folder names (CVE-2026-4372)."""


@dataclass(frozen=True, slots=True)
class Card:
    """What an export cannot read from the folder."""

    name: str
    licence: str
    sources: Sequence[str] = ()
    max_tokens: int = 512
    pooling: Literal["mean", "cls", "max"] = "mean"
    normalise: bool = True
    query_prefix: str = ""
    passage_prefix: str = ""


def checked_configuration(source: Path) -> dict[str, Any]:
    """`config.json` of a transformers folder, which names no code and has safe weights beside it.

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


def copy_tokenizer(source: Path, out: Path) -> None:
    """Copies `tokenizer.json` without its indentation, a third of its size."""
    (out / TOKENIZER).write_bytes(msgspec.json.encode(msgspec.json.decode((source / TOKENIZER).read_bytes())))
