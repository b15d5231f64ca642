"""Enriched documents as actions of a bulk request: pure, bytes in and out."""

from dataclasses import dataclass
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from bridge.profile import IndexProfile
from bridge.records import EnrichedDocument
from ingest.json_objects import with_key

BulkOp = Literal["index", "create", "update"]

_EMBEDDING_DECIMALS = 7
"""Components of a unit vector are at most 1, where float32 resolves 6e-8: more digits only cost bytes."""

_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class BulkAction:
    """One action; `lines` are its one or two lines of the request, newlines included."""

    op: BulkOp
    doc_id: str
    lines: bytes


def index_action(enriched: EnrichedDocument, profile: IndexProfile, *, op: BulkOp = "index") -> BulkAction:
    """Writes the whole document with our object spliced in; the rest of it stays byte for byte."""
    document = enriched.document
    target = {"_id": document.doc_id}
    if document.routing is not None:
        target["routing"] = document.routing
    body = with_key(document.body, profile.object_field, neural_object(enriched, profile))
    return BulkAction(op, document.doc_id, _encode({op: target}) + b"\n" + body + b"\n")


def neural_object(enriched: EnrichedDocument, profile: IndexProfile) -> bytes:
    """The value of our field, as JSON. A document without text has neither queries nor vectors."""
    pairs = [b'"stamp":' + _encode(enriched.stamp)]
    if enriched.predicted_queries:
        pairs.append(b'"predicted_queries":' + _encode(list(enriched.predicted_queries)))
    if len(enriched.embeddings):
        pairs.append(_vectors(enriched, profile))
    return b"{" + b",".join(pairs) + b"}"


def _vectors(enriched: EnrichedDocument, profile: IndexProfile) -> bytes:
    if profile.passages.layout == "single":
        return b'"embedding":' + _array(enriched.embeddings[0])
    passages = (
        b'{"start":%d,"end":%d,"embedding":%s}' % (passage.start, passage.end, _array(embedding))
        for passage, embedding in zip(enriched.passages, enriched.embeddings, strict=True)
    )
    return b'"passages":[' + b",".join(passages) + b"]"


def _array(embedding: NDArray[np.float32]) -> bytes:
    return _encode(np.round(embedding.astype(np.float64), _EMBEDDING_DECIMALS).tolist())
