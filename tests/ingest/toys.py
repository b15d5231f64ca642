"""Stand-ins for the models, with outcomes that a reader can foresee; for the pipeline, not for the models."""

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from bridge.errors import ModelError
from bridge.profile import ModelReference, SparseSettings
from bridge.records import Terms
from ingest.stages.models import Models

DIMENSION = 4


class CountingEncoder:
    """The unit vector of the text's length modulo the dimension; counts texts, chokes on `NaN`."""

    dimension = DIMENSION

    def __init__(self) -> None:
        self.texts = 0

    def encode(self, texts: Sequence[str], role: Literal["query", "passage"] = "query") -> NDArray[np.float32]:
        assert role == "passage"
        self.texts += len(texts)
        embeddings = np.eye(DIMENSION, dtype=np.float32)[[len(text) % DIMENSION for text in texts]]
        embeddings[[i for i, text in enumerate(texts) if "NaN" in text]] = np.nan
        return embeddings


class WordWeigher:
    """A sparse encoder whose terms are a text's words, each with its number of letters as weight."""

    def encode(self, texts: Sequence[str], role: Literal["query", "passage"] = "passage") -> list[Terms]:
        assert role == "passage"
        return [
            {
                word: float(len(word))
                for word in sorted(set(re.findall(r"\w+", text)), key=lambda word: (-len(word), word))
            }
            for text in texts
        ]


class EchoGenerator:
    """Predicts `what is WORD` for each of the passage's first words; chokes on `choke`."""

    def __init__(self) -> None:
        self.passages = 0

    def generate(self, passages: Sequence[str], *, n_queries: int, max_new_tokens: int, seed: int) -> list[list[str]]:
        if any("choke" in passage for passage in passages):
            raise ModelError("the generator choked")
        self.passages += len(passages)
        return [[f"what is {word}" for word in passage.split()[:n_queries]] for passage in passages]


class LengthScorer:
    """The score of a query is its length."""

    def score(self, query: str, passages: Sequence[str]) -> NDArray[np.float32]:
        return np.full(len(passages), len(query), dtype=np.float32)


def word_spans(text: str) -> list[tuple[int, int]]:
    """Words as tokens."""
    return [match.span() for match in re.finditer(r"\S+", text)]


def toy_models(*, with_generator: bool = True) -> Models:
    """An encoder and, where asked, a generator."""
    return Models(
        encoder=CountingEncoder(),
        encoder_reference=ModelReference("toy-encoder", "0" * 12),
        token_spans=word_spans,
        generator=EchoGenerator() if with_generator else None,
        generator_reference=ModelReference("toy-generator", "1" * 12) if with_generator else None,
    )


def models_with_terms() -> Models:
    """The toys, and a sparse encoder."""
    sparse = SparseSettings(ModelReference("toy-sparse-encoder", "4" * 12), top_terms=3)
    return replace(toy_models(), sparse_encoder=WordWeigher(), sparse=sparse)


WIDER = 6


class WiderEncoder(CountingEncoder):
    """As the other toy, with more dimensions."""

    dimension = WIDER

    def encode(self, texts: Sequence[str], role: Literal["query", "passage"] = "query") -> NDArray[np.float32]:
        self.texts += len(texts)
        return np.eye(WIDER, dtype=np.float32)[[len(text) % WIDER for text in texts]]


def wider_models() -> Models:
    toys = toy_models()
    return Models(
        WiderEncoder(),
        ModelReference("wider-encoder", "2" * 12),
        toys.token_spans,
        toys.generator,
        ModelReference("other-generator", "3" * 12),
    )
