"""The stage that embeds passages and completes documents for writing."""

from collections.abc import Callable, Sequence
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from bridge.errors import ModelError
from bridge.records import Document, EnrichedDocument, ExpandedDocument


class PassageEncoder(Protocol):
    """Texts → embeddings; see `bridge.models.encoder`."""

    dimension: int

    def encode(self, texts: Sequence[str], role: Literal["query", "passage"] = "query") -> NDArray[np.float32]:
        """float32, (n_texts, dimension), rows of unit length, input order."""


class Embedding:
    """Embeds the passages of a batch together."""

    def __init__(self, encoder: PassageEncoder | None, *, stamp: Callable[[Document], str]) -> None:
        """`encoder` None leaves documents without vectors. `stamp` names what a document is made from: see
        `ingest.stamp`."""
        self._encoder = encoder
        self._stamp = stamp

    def __call__(self, documents: Sequence[ExpandedDocument]) -> list[EnrichedDocument]:
        """Completes a batch, in its order. A document without text has no embedding.

        Raises:
            ModelError: the encoder failed, or gave a value that is not finite or of a wrong shape.
        """
        texts = [passage.text for document in documents for passage in document.passages]
        embeddings = self._encode(texts)
        enriched = []
        for document in documents:
            n_passages = len(document.passages)
            enriched.append(
                EnrichedDocument(
                    document.document,
                    document.passages,
                    document.predicted_queries,
                    embeddings[:n_passages],
                    self._stamp(document.document),
                )
            )
            embeddings = embeddings[n_passages:]
        return enriched

    def _encode(self, texts: list[str]) -> NDArray[np.float32]:
        if self._encoder is None or not texts:
            return np.zeros((0, 0), dtype=np.float32)
        expected = (len(texts), self._encoder.dimension)
        embeddings = self._encoder.encode(texts, role="passage")
        if embeddings.shape != expected:
            raise ModelError(f"the encoder gave an array of shape {embeddings.shape}, expected {expected}")
        if not np.isfinite(embeddings).all():
            raise ModelError("the encoder gave a value that is not finite (NaN or infinite)")
        return embeddings
