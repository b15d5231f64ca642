"""The graph of a torch model in ONNX, and how near it must come to torch.

It comes from `torch.onnx.export(dynamo=False)`: the attention fusion of ONNX Runtime knows its shape, and not that
of the newer exporter.
"""

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from bridge.errors import ModelError
from bridge.models.artifact import ModelFolder

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


def trace(model: Any, file: Path, *, inputs: Sequence[str], output: str) -> None:
    """Writes the model's graph, for any number of texts of any length; `inputs` in the order of its `forward`, by which
    the exporter names them."""
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
    """The error of a graph that differs from torch by so much."""
    return ModelError(
        f"model {folder.path} differs from torch by {difference:.2g} (at most {MAX_DIFFERENCE:g} is rounding): this "
        f"model's shape is not exported rightly, do not use it"
    )


@contextmanager
def quiet() -> Iterator[None]:
    """Silences the exporter's notes on tracing."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.getLogger("onnxruntime.transformers").setLevel(logging.ERROR)
        yield
