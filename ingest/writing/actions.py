"""Enriched documents as actions of a bulk request: pure, bytes in and out."""

from collections.abc import Collection
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from bridge.profile import IndexProfile
from bridge.records import EnrichedDocument
from ingest.sources.json_objects import with_key

BulkOp = Literal["index", "update"]

_EMBEDDING_DECIMALS = 7
"""Components of a unit vector are at most 1, where float32 resolves 6e-8: more digits only cost bytes."""

_encode = msgspec.json.Encoder().encode


class BulkAction(msgspec.Struct, frozen=True):
    """One action; `lines` are its one or two lines of the request, newlines included."""

    op: BulkOp
    doc_id: str
    lines: bytes


def index_action(enriched: EnrichedDocument, profile: IndexProfile) -> BulkAction:
    """Writes the whole document with our object spliced in; the rest of it stays byte for byte."""
    document = enriched.document
    target = {"_id": document.doc_id}
    if document.routing is not None:
        target["routing"] = document.routing
    body = with_key(document.body, profile.object_field, neural_object(enriched, profile))
    return BulkAction("index", document.doc_id, _encode({"index": target}) + b"\n" + body + b"\n")


def update_action(enriched: EnrichedDocument, profile: IndexProfile) -> BulkAction:
    """Sets our object alone, and only if the document still is as it was read."""
    document = enriched.document
    target: dict[str, str | int] = {"_id": document.doc_id}
    if document.routing is not None:
        target["routing"] = document.routing
    if document.version is not None:
        target["if_seq_no"] = document.version.seq_no
        target["if_primary_term"] = document.version.primary_term
    # An update merges objects: what an earlier recipe wrote and this one does not is overwritten by null.
    cleared = ["predicted_queries"]
    if profile.vector_type != "none":
        cleared.append("embedding" if profile.passages.layout == "single" else "passages")
    value = neural_object(enriched, profile, nulls=cleared)
    body = b'{"doc":{' + _encode(profile.object_field) + b":" + value + b"}}"
    return BulkAction("update", document.doc_id, _encode({"update": target}) + b"\n" + body + b"\n")


def neural_object(enriched: EnrichedDocument, profile: IndexProfile, *, nulls: Collection[str] = ()) -> bytes:
    """The value of our field, as JSON: this generation's fields, and no others. A document without text has
    neither queries nor vectors; of these fields, those in `nulls` are then null."""
    fields = {"stamp": _encode(enriched.stamp)}
    if enriched.predicted_queries:
        fields["predicted_queries"] = _encode(list(enriched.predicted_queries))
    if len(enriched.embeddings) and profile.passages.layout == "single":
        fields["embedding"] = _array(enriched.embeddings[0])
    elif len(enriched.embeddings):
        fields["passages"] = _passages(enriched)
    fields.update({name: b"null" for name in nulls if name not in fields})
    value = b"{" + b",".join(_encode(name) + b":" + value for name, value in fields.items()) + b"}"
    _, *within = profile.generation_field.split(".")
    for name in reversed(within):
        value = b"{" + _encode(name) + b":" + value + b"}"
    return value


def _passages(enriched: EnrichedDocument) -> bytes:
    passages = (
        b'{"start":%d,"end":%d,"embedding":%s}' % (passage.start, passage.end, _array(embedding))
        for passage, embedding in zip(enriched.passages, enriched.embeddings, strict=True)
    )
    return b"[" + b",".join(passages) + b"]"


def _array(embedding: NDArray[np.float32]) -> bytes:
    return _encode(np.round(embedding.astype(np.float64), _EMBEDDING_DECIMALS).tolist())
