"""What ingest, adaptation and benchmarks expect of a model, wherever it runs: in this process, or on a server."""

from collections.abc import Sequence
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from bridge.records import Terms


class Encoder(Protocol):
    """Texts → embeddings; see `bridge.models.encoder`."""

    @property
    def dimension(self) -> int:
        """Numbers in an embedding."""

    def encode(self, texts: Sequence[str], role: Literal["query", "passage"] = "query") -> NDArray[np.float32]:
        """float32, (n_texts, dimension), rows of unit length, input order."""


class SparseEncoder(Protocol):
    """Texts → weighted terms; see `bridge.models.sparse_encoder`."""

    def encode(self, texts: Sequence[str], role: Literal["query", "passage"] = "passage") -> list[Terms]:
        """The terms of each text, largest first, input order."""


class Scorer(Protocol):
    """Query, passages → scores; see `bridge.models.cross_encoder`."""

    def score(self, query: str, passages: Sequence[str]) -> NDArray[np.float32]:
        """float32, (n_passages,), input order."""


class QueryGenerator(Protocol):
    """Passages → queries; see `bridge.models.query_generator`."""

    def generate(self, passages: Sequence[str], *, n_queries: int, max_new_tokens: int, seed: int) -> list[list[str]]:
        """At most `n_queries` queries per passage, best first."""
