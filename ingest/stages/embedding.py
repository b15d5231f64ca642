"""The stage that encodes passages, as vectors and as weighted terms, and pictures, and completes documents."""

from collections.abc import Callable, Iterable, Sequence
from typing import Self

import numpy as np
from numpy.typing import NDArray

from bridge.errors import ModelError
from bridge.models.protocols import Encoder, SparseEncoder
from bridge.profile import IndexProfile
from bridge.records import Document, EnrichedDocument, ExpandedDocument, Terms
from ingest.stages.models import Models


class Embedding:
    """Encodes the passages of a batch together."""

    def __init__(
        self,
        encoder: Encoder | None,
        *,
        stamp: Callable[[Document], str],
        sparse_encoder: SparseEncoder | None = None,
        top_terms: int = 0,
        images: Callable[[Sequence[Document]], list[NDArray[np.float32] | None]] | None = None,
    ) -> None:
        """`encoder` None leaves documents without vectors, `sparse_encoder` None without terms, of which a document
        gets at most `top_terms`, `images` None without vectors of their pictures; `stamp`: see
        `ingest.stages.stamps`."""
        self._encoder = encoder
        self._sparse_encoder = sparse_encoder
        self._top_terms = top_terms
        self._stamp = stamp
        self._images = images

    @classmethod
    def of(cls, profile: IndexProfile, models: Models, stamp: Callable[[Document], str]) -> Self:
        """The stage that makes the vectors and terms of an index with this profile, if it has any."""
        return cls(
            models.encoder if profile.has_vectors else None,
            stamp=stamp,
            sparse_encoder=models.sparse_encoder if profile.sparse else None,
            top_terms=profile.sparse.top_terms if profile.sparse else 0,
            images=models.images if profile.image else None,
        )

    def __call__(self, documents: Sequence[ExpandedDocument]) -> list[EnrichedDocument]:
        """Completes a batch, in its order. A document without text has neither embedding nor terms.

        Raises:
            ModelError: the encoder failed, or gave a value that is not finite or of a wrong shape.
            PictureRefused: a picture cannot be read.
        """
        # First: a batch with a picture that cannot be read is done again, one by one.
        images = self._images([each.document for each in documents]) if self._images else [None] * len(documents)
        texts = [passage.text for document in documents for passage in document.passages]
        embeddings = self._encode(texts)
        terms = self._sparse_encoder.encode(texts, role="passage") if self._sparse_encoder and texts else []
        enriched = []
        for each, image in zip(documents, images, strict=True):
            n_passages = len(each.passages)
            own, embeddings = embeddings[:n_passages], embeddings[n_passages:]
            its_terms, terms = _largest(terms[:n_passages], self._top_terms), terms[n_passages:]
            enriched.append(
                EnrichedDocument(
                    each.document,
                    each.passages,
                    each.predicted_queries,
                    own,
                    self._stamp(each.document),
                    its_terms,
                    image,
                )
            )
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


def _largest(of_passages: Iterable[Terms], most: int) -> Terms:
    """The `most` largest terms, largest first; a term has the largest weight that any passage gives it."""
    maxima: dict[str, float] = {}
    for terms in of_passages:
        for term, weight in terms.items():
            maxima[term] = max(weight, maxima.get(term, 0.0))
    return dict(sorted(maxima.items(), key=lambda term: -term[1])[:most])
