"""What a query generator asks of the engine that runs it: CTranslate2, an optional package, or ONNX Runtime, at about
half the speed. A model folder holds the files of one of them."""

from collections.abc import Sequence
from typing import Protocol

import msgspec

CTRANSLATE2_FILE = "model.bin"
ONNX_FILES = ("encoder_model.onnx", "decoder_model.onnx", "decoder_with_past_model.onnx")
"""The encoder, the decoder's first step, and its further steps."""

TOP_K = 10
"""At each step an engine samples from so many of the likeliest words, as docTTTTTquery does."""


class Sample(msgspec.Struct, frozen=True):
    """A sampled query: ids without special tokens, and the mean log-probability of its tokens."""

    ids: Sequence[int]
    score: float


class Engine(Protocol):
    """Runs an encoder-decoder."""

    def sample(
        self, passages: Sequence[Sequence[int]], *, n_samples: int, max_new_tokens: int, seed: int
    ) -> list[list[Sample]]:
        """Samples `n_samples` queries for each passage, in any order; a passage is ids with special tokens."""
        ...
