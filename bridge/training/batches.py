"""Makes batches of texts: cut to short windows, grouped by length, in a new order each epoch."""

import math
import random
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding

_WORD = re.compile(r"\w+")
_WIDTH_STEP = 16
"""Widths are multiples of this: matrix kernels are compiled for each new shape, which took an eighth of a training
step."""

Batch = TypeVar("Batch")


class Epochs(Generic[Batch]):
    """Batches by step. They depend only on step and seed, so a resumed run sees the same batches as an uninterrupted
    one."""

    def __init__(self, make: Callable[[random.Random], list[Batch]], *, seed: int) -> None:
        """`make` shuffles the batches of one epoch; every epoch has equally many."""
        self._make = make
        self._seed = seed
        self._epoch = 0
        self._batches = self._made(0)
        self.n_steps = len(self._batches)

    def batch(self, step: int) -> Batch:
        epoch, place = divmod(step, self.n_steps)
        if epoch != self._epoch:
            self._batches, self._epoch = self._made(epoch), epoch
        return self._batches[place]

    def random(self, step: int) -> random.Random:
        """The random generator of one step."""
        return random.Random(f"{self._seed}:{step}")

    def _made(self, epoch: int) -> list[Batch]:
        return self._make(random.Random(f"{self._seed}:epoch:{epoch}"))


def padded_chunks(encodings: Sequence[Encoding], chunk_tokens: int) -> Iterator[tuple[list[int], NDArray[np.int64]]]:
    """All encodings, shortest first, in chunks of at most `chunk_tokens` padded tokens; a longer encoding is a chunk of
    its own.

    Each chunk is the indices of its encodings and an int64 array (3, n_sequences, n_tokens): ids, mask, token types.
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


def rarity(texts: Iterable[str]) -> dict[str, float]:
    """Lower-cased word → inverse document frequency, log(1 + n / df)."""
    n_texts = 0
    frequencies: Counter[str] = Counter()
    for text in texts:
        n_texts += 1
        frequencies.update(set(_WORD.findall(text.lower())))
    return {word: math.log(1.0 + n_texts / df) for word, df in frequencies.items()}


def best_window(query: str, passage: str, n_words: int, weights: Mapping[str, float]) -> str:
    """The window of `n_words` words that contains most of the query's distinct, rare words (`weights`: see `rarity`).

    Attention over 96 tokens costs a CPU less than half of what it costs over 192. Truncation at the end would cut
    answers off, and a relevant passage without its answer teaches the wrong thing. Relevant passages and negatives are
    cut in the same way, so the window itself gives nothing away.

    Windows start at every quarter of their length; the first of equals wins. A shorter passage comes back whole.
    """
    words = passage.split()
    if len(words) <= n_words:
        return passage
    wanted = set(_WORD.findall(query.lower()))
    matches = [wanted.intersection(_WORD.findall(word.lower())) for word in words]
    best_start, best_weight = 0, -1.0
    starts = [*range(0, len(words) - n_words, max(1, n_words // 4)), len(words) - n_words]
    for start in starts:
        covered = set().union(*matches[start : start + n_words])
        weight = sum(weights.get(word, 0.0) for word in covered)
        if weight > best_weight:
            best_start, best_weight = start, weight
    return " ".join(words[best_start : best_start + n_words])
