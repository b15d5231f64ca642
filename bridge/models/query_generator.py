"""Passages → the queries that they may answer (Nogueira et al. 2019, "Document expansion by query prediction":
https://arxiv.org/abs/1904.08375)."""

import re
from collections.abc import Sequence
from itertools import groupby
from typing import Self

from bridge.errors import ModelError
from bridge.models.artifact import ModelFolder, verify
from bridge.models.generation import CTRANSLATE2_FILE, ONNX_FILES, Engine, Sample
from bridge.models.onnx_engine import OnnxEngine
from bridge.models.session import compute_threads
from bridge.models.tokenization import TextTokenizer, load_tokenizer

_WORD_ENDING = re.compile(r"\s*'\s*(?=(?:d|ll|m|re|s|t|ve)\b)")
"""The apostrophe of "it's" and its kind: vocabularies of word pieces keep it apart."""


class QueryGenerator:
    """A query generator on CPU. Not for several threads at once: its engine has threads of its own."""

    def __init__(self, folder: ModelFolder, engine: Engine, tokenizer: TextTokenizer) -> None:
        """See `load`, which also verifies the folder."""
        self._engine = engine
        self.tokenizer = tokenizer
        self.identity = folder.identity

    @classmethod
    def load(cls, folder: ModelFolder, *, threads: int = 0) -> Self:
        """Opens a model folder with the fastest engine that can read it; `threads` 0 takes the CPUs that this
        process may use.

        Raises:
            ModelError: the folder is not what its manifest says, or its engine is not installed.
        """
        verify(folder, kind="query_generator")
        return cls(folder, _engine(folder, compute_threads(threads)), load_tokenizer(folder))

    def generate(
        self, passages: Sequence[str], *, n_queries: int, max_new_tokens: int = 20, seed: int = 0
    ) -> list[list[str]]:
        """At most `n_queries` different queries per passage, likeliest first; none for an empty passage.

        The same arguments give the same queries.

        Raises:
            ModelError: the model failed.
        """
        rows = [row for row, passage in enumerate(passages) if passage.strip()]
        queries: list[list[str]] = [[] for _ in passages]
        if not rows or n_queries < 1:
            return queries
        sequences = self.tokenizer.sequences([passages[row] for row in rows])
        samples = self._engine.sample(
            [sequence["input_ids"][0].tolist() for sequence in sequences],
            n_samples=n_queries,
            max_new_tokens=max_new_tokens,
            seed=seed,
        )
        for row, drawn in zip(rows, samples, strict=True):
            queries[row] = self._distinct(drawn)
        return queries

    def _distinct(self, samples: Sequence[Sample]) -> list[str]:
        ranked = sorted(samples, key=lambda sample: -sample.score)
        # A small decoder stutters, and each repetition would count as one more word of the document.
        pieces = ([piece for piece, _ in groupby(sample.ids)] for sample in ranked)
        texts = (_WORD_ENDING.sub("'", self.tokenizer.decode(ids)).strip() for ids in pieces)
        return list({text.casefold(): text for text in texts if text}.values())


def _engine(folder: ModelFolder, threads: int) -> Engine:
    files = folder.manifest.files.keys()
    if files >= set(ONNX_FILES):
        return OnnxEngine(folder, threads=threads)
    if CTRANSLATE2_FILE not in files:
        raise ModelError(f"model {folder.path} has neither {CTRANSLATE2_FILE} nor {ONNX_FILES[0]}: export it anew")
    try:
        from bridge.models.ctranslate2_engine import CTranslate2Engine  # an optional package
    except ImportError as error:
        raise ModelError(
            f"model {folder.path} needs CTranslate2, which is not installed: "
            f"pip install 'opensearch-neural-bridge[ctranslate2]', or export the model with --engine onnx"
        ) from error
    return CTranslate2Engine(folder, threads=threads)
