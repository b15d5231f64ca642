"""The field's nouns as immutable records: what flows through ingest and through a search.

Document side: `Document` (as read) → `ExpandedDocument` (predicted queries added) → `EnrichedDocument`
(embeddings added, ready to write). A half-finished document has another type, so nobody writes it by
mistake. Query side: `Hit`, `RankedHit`. A search makes hundreds of hits and an ingest millions of documents, so
these are msgspec's structs, which cost a fraction of a dataclass to make. Those that no cycle can hold are none of
the garbage collector's business: a proxy keeps rankings, and each look through them would hold everybody up.
"""

from collections.abc import Mapping, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray


class SourcePosition(msgspec.Struct, frozen=True, gc=False):
    """The place of a document in its source, for messages and dead letters: file and line, or index and `_id`.

    `mark` is set by sources whose items move while they are read, such as the rows of a table: reading goes on there.
    """

    source: str
    offset: int
    mark: str | None = None

    def __str__(self) -> str:
        return f"{self.source}:{self.offset}"


class DocumentVersion(msgspec.Struct, frozen=True, gc=False):
    """The version of a document in an index: a write may require that it is still the latest."""

    seq_no: int
    primary_term: int


class Document(msgspec.Struct, frozen=True):
    """A document as it was read.

    `body` is the JSON object exactly as it came, UTF-8 encoded: numbers and unknown fields reach the
    index byte for byte. `texts` maps each text field that is enriched to its text, in profile order.
    `image` is what the field of its picture holds, None if there is no such field or nothing in it.
    `version` is set only for documents read from an index. `origin` names the source whose documents are
    removed with what they were made from, if it is one.
    """

    doc_id: str
    body: bytes
    texts: Mapping[str, str]
    position: SourcePosition
    routing: str | None = None
    version: DocumentVersion | None = None
    origin: str | None = None
    image: str | None = None


class Passage(msgspec.Struct, frozen=True):
    """A stretch of a document's enriched text: character offsets `[start, end)` into that text."""

    text: str
    start: int
    end: int


class ExpandedDocument(msgspec.Struct, frozen=True):
    """A document split into passages, with the queries that it is predicted to answer, best first."""

    document: Document
    passages: Sequence[Passage]
    predicted_queries: Sequence[str]


Terms = Mapping[str, float]
"""Word pieces of a sparse encoder's vocabulary (`wing`, `##s`) and their weights, all above zero, the largest first.
Special tokens and pieces with a dot, which would be a path in the index, are never among them."""


class EnrichedDocument(msgspec.Struct, frozen=True):
    """A document ready to write. `embeddings`: float32, (n_passages, dimension), rows of unit length,
    in the order of `passages`; no row if the text is empty. `stamp`: hash of the source text and
    identities of the models. `terms`: the document's weighted terms; empty if no sparse encoder serves.
    `image`: the embedding of its picture, float32 (dimension,), of unit length; None if it has none."""

    document: Document
    passages: Sequence[Passage]
    predicted_queries: Sequence[str]
    embeddings: NDArray[np.float32]
    stamp: str
    terms: Terms = {}
    image: NDArray[np.float32] | None = None


Key = tuple[str, str]
"""Index and `_id` of a document: a search may span several indices."""


class Hit(msgspec.Struct, frozen=True, gc=False):
    """A document found by a search: identity and score; higher is better.

    If the search asked for them, `fields` are doc values by field, and `source` is the document's JSON.
    """

    index: str
    doc_id: str
    score: float
    fields: Mapping[str, Sequence[object]] = {}
    source: bytes = b""

    @property
    def key(self) -> Key:
        """Identifies the document."""
        return (self.index, self.doc_id)


class LegScore(msgspec.Struct, frozen=True, gc=False):
    """What one leg said of a document: rank (first is 1) and the leg's own score."""

    rank: int
    score: float


class Smoothed(msgspec.Struct, frozen=True, gc=False):
    """How smoothing changed a document's fused score: the score before, and the neighbours' shares in the new one; with
    the document's own share they add up to 1."""

    before: float
    neighbours: Mapping[Key, float]


class RankedHit(msgspec.Struct, frozen=True, gc=False):
    """A document in a ranking, with what each stage said of it.

    `legs` holds the legs that found it; `fused_score` is smoothed if `smoothed` is set. `rerank_score` is the
    cross-encoder's logit, None if it did not read the document; `cascade_score` the small cross-encoder's, set only if
    that one alone read it in a cascade. `lift`: what the application's own boosts make of the document, in -1…1;
    `pinned`: they have it before all others. `nearest_above`: the estimated cosine, in 0…1, of the document and the one
    most like it among those before it; None unless the ranking is diverse.
    """

    index: str
    doc_id: str
    score: float
    legs: Mapping[str, LegScore] = msgspec.field(default_factory=dict)
    fused_score: float | None = None
    smoothed: Smoothed | None = None
    rerank_score: float | None = None
    cascade_score: float | None = None
    lift: float | None = None
    pinned: bool = False
    nearest_above: float | None = None

    @property
    def key(self) -> Key:
        """See `Hit.key`."""
        return (self.index, self.doc_id)
