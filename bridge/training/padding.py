"""Sequences of like length side by side in one array: little padding, and no batch larger than the memory bears."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding

_WIDTH_STEP = 16
"""Widths are multiples of it: the kernels of a matrix product are made anew for each shape that was not there before,
which took an eighth of a training step."""


def padded_chunks(encodings: Sequence[Encoding], chunk_tokens: int) -> Iterator[tuple[list[int], NDArray[np.int64]]]:
    """All encodings, the shortest first, in chunks of at most `chunk_tokens` padded tokens; a longer one is alone.

    Each chunk as the encodings' numbers and an int64 array (3, n_sequences, n_tokens): ids, mask, token types.
    """
    by_length = sorted(range(len(encodings)), key=lambda row: len(encodings[row].ids))
    widths = [-(-len(encodings[row].ids) // _WIDTH_STEP) * _WIDTH_STEP for row in by_length]
    start = 0
    while start < len(by_length):
        end = start + 1
        while end < len(by_length) and (end + 1 - start) * widths[end] <= chunk_tokens:
            end += 1
        rows = by_length[start:end]
        inputs = np.zeros((3, len(rows), widths[end - 1]), dtype=np.int64)
        for place, row in enumerate(rows):
            encoding = encodings[row]
            inputs[:, place, : len(encoding.ids)] = encoding.ids, encoding.attention_mask, encoding.type_ids
        yield rows, inputs
        start = end
