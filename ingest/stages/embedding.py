"""The stage that embeds passages and completes documents for writing."""

from collections.abc import Callable, Sequence
from typing import Self

import numpy as np
from numpy.typing import NDArray

from bridge.errors import ModelError
from bridge.models.protocols import Encoder
from bridge.profile import IndexProfile
from bridge.records import Document, EnrichedDocument, ExpandedDocument
from ingest.stages.models import Models


class Embedding:
    """Embeds the passages of a batch together."""

    def __init__(self, encoder: Encoder | None, *, stamp: Callable[[Document], str]) -> None:
        """`encoder` None leaves documents without vectors; `stamp`: see `ingest.stages.stamps`."""
        self._encoder = encoder
        self._stamp = stamp

    @classmethod
    def of(cls, profile: IndexProfile, models: Models, stamp: Callable[[Document], str]) -> Self:
        """The stage that makes the vectors of an index with this profile, if it has any."""
        return cls(models.encoder if profile.has_vectors else None, stamp=stamp)

    def __call__(self, documents: Sequence[ExpandedDocument]) -> list[EnrichedDocument]:
        """Completes a batch, in its order. A document without text has no embedding.

        Raises:
            ModelError: the encoder failed, or gave a value that is not finite or of a wrong shape.
        """
        embeddings = self._encode([passage.text for document in documents for passage in document.passages])
        enriched = []
        for each in documents:
            n_passages = len(each.passages)
            own, embeddings = embeddings[:n_passages], embeddings[n_passages:]
            stamp = self._stamp(each.document)
            enriched.append(EnrichedDocument(each.document, each.passages, each.predicted_queries, own, stamp))
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
