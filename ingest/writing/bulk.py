"""Bulk requests: enriched documents as actions, and the meaning of the cluster's answer for each. Pure.

A status alone does not tell: a full disk is a 429 like an overload is, and a 409 can be good news.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from bridge.cluster.connection import GONE, Answer
from bridge.cluster.dialects import code_of, vector_bytes
from bridge.errors import AccessDenied, BridgeError, IndexUnsuitable
from bridge.profile import ENTRY_ID, IndexProfile
from bridge.records import Document, EnrichedDocument, Terms
from bridge.text import decode
from ingest.books.ledger import Failure, Outcome
from ingest.sources.json_bytes import with_key

BulkOp = Literal["index", "update", "delete"]

_EMBEDDING_DECIMALS = 7
"""Components of a unit vector are at most 1, where float32 resolves 6e-8: more digits only cost bytes."""

_encode = msgspec.json.Encoder().encode

_OVERLOADED = 429
_AWAY = (502, 503, 504)
_BLOCK = "cluster_block_exception"
_WRITTEN = Outcome("written")


class BulkAction(msgspec.Struct, frozen=True):
    """One action; `lines` are its lines of the request, with their newlines."""

    op: BulkOp
    doc_id: str
    lines: bytes


INDEX_MUST_EXIST = BulkAction("update", "-", b'{"update":{"_id":"-","require_alias":true}}\n{"doc":{}}\n')
"""An action that a cluster never carries out, since the bridge writes to indices by their own names and by no alias.
But one such action in a bulk request keeps the cluster from creating a missing index for any of the others."""


def index_action(enriched: EnrichedDocument, profile: IndexProfile) -> BulkAction:
    """Writes the whole document with our object in it; the rest of it stays byte for byte."""
    document = enriched.document
    target = {"_id": document.doc_id}
    if document.routing is not None:
        target["routing"] = document.routing
    body = with_key(document.body, profile.object_field, neural_object(enriched, profile))
    return BulkAction("index", document.doc_id, _encode({"index": target}) + b"\n" + body + b"\n")


def update_action(enriched: EnrichedDocument, profile: IndexProfile) -> BulkAction:
    """Sets our object alone, and only if the document has not changed since it was read."""
    document = enriched.document
    target: dict[str, str | int] = {"_id": document.doc_id}
    if document.routing is not None:
        target["routing"] = document.routing
    if document.version is not None:
        target["if_seq_no"] = document.version.seq_no
        target["if_primary_term"] = document.version.primary_term
    # An update merges objects: what an earlier recipe wrote and this one does not is overwritten by null.
    cleared = ["predicted_queries"]
    if profile.has_vectors:
        cleared.append("embedding" if profile.passages.layout == "single" else "passages")
    if profile.has_codes:
        cleared.append("code")
    if profile.image:
        cleared.append("image_embedding")
    value = neural_object(enriched, profile, nulls=cleared)
    body = b'{"doc":{' + _encode(profile.object_field) + b":" + value + b"}}"
    return BulkAction("update", document.doc_id, _encode({"update": target}) + b"\n" + body + b"\n")


def companion_action(enriched: EnrichedDocument, profile: IndexProfile) -> BulkAction:
    """Writes the companion of a document: its texts and our object, unless what is there was made from a newer one.

    A document was read at some sequence number, which only grows: see `bridge.cluster.companion`.
    """
    document = enriched.document
    target: dict[str, str | int] = {"_id": document.doc_id}
    if document.routing is not None:
        target["routing"] = document.routing
    if document.version is not None:
        target |= {"version": document.version.seq_no + 1, "version_type": "external_gte"}
    fields = {name: _encode(text) for name, text in document.texts.items() if text}
    fields[profile.object_field] = neural_object(enriched, profile)
    body = b",".join(_encode(name) + b":" + value for name, value in fields.items())
    return BulkAction("index", document.doc_id, _encode({"index": target}) + b"\n{" + body + b"}\n")


def delete_action(document: Document) -> BulkAction:
    """Deletes a document, if it is as it was read."""
    target: dict[str, str | int] = {"_id": document.doc_id}
    if document.routing is not None:
        target["routing"] = document.routing
    if document.version is not None:
        target |= {"if_seq_no": document.version.seq_no, "if_primary_term": document.version.primary_term}
    return BulkAction("delete", document.doc_id, _encode({"delete": target}) + b"\n")


def neural_object(enriched: EnrichedDocument, profile: IndexProfile, *, nulls: Collection[str] = ()) -> bytes:
    """The value of our field, as JSON: this generation's fields, and no others. A document without text has neither
    queries nor vectors; the fields in `nulls` are then null."""
    fields = {"stamp": _encode(enriched.stamp)}
    if profile.beside:
        fields[ENTRY_ID] = _encode(enriched.document.doc_id)
    if enriched.predicted_queries:
        fields["predicted_queries"] = _encode(list(enriched.predicted_queries))
    if len(enriched.embeddings) and profile.passages.layout == "single":
        fields["embedding"] = _array(enriched.embeddings[0], profile)
    elif len(enriched.embeddings):
        fields["passages"] = _passages(enriched, profile)
    if profile.has_codes and (code := code_of(enriched.embeddings, enriched.terms, profile)):
        fields["code"] = _encode(code)
    if profile.has_terms:
        # An update merges objects and replaces arrays: in an array no term of an earlier text stays.
        fields["terms"] = _encode([_rounded(enriched.terms)] if enriched.terms else [])
    if profile.image and enriched.image is not None:
        fields["image_embedding"] = _array(enriched.image, profile)
    fields.update({name: b"null" for name in nulls if name not in fields})
    value = b"{" + b",".join(_encode(name) + b":" + value for name, value in fields.items()) + b"}"
    _, *within = profile.generation_field.split(".")
    for name in reversed(within):
        value = b"{" + _encode(name) + b":" + value + b"}"
    return value


def _passages(enriched: EnrichedDocument, profile: IndexProfile) -> bytes:
    passages = (
        b'{"start":%d,"end":%d,"embedding":%s}' % (passage.start, passage.end, _array(embedding, profile))
        for passage, embedding in zip(enriched.passages, enriched.embeddings, strict=True)
    )
    return b"[" + b",".join(passages) + b"]"


def _rounded(terms: Terms) -> Terms:
    """Weights as precisely as the engines keep them, which is 9 bits."""
    return {term: float(f"{weight:.3g}") for term, weight in terms.items()}


def _array(embedding: NDArray[np.float32], profile: IndexProfile) -> bytes:
    if profile.vector_encoding == "byte":
        return _encode(vector_bytes(embedding).tolist())
    return _encode(np.round(embedding.astype(np.float64), _EMBEDDING_DECIMALS).tolist())


@dataclass(frozen=True, slots=True)
class Again:
    """The action was not carried out, or that is not known: it has to be sent again.

    `cause` overloaded: the cluster asks for less; away: it does not answer, or lacks the shard or the manager, as
    while nodes restart; blocked: it refuses writes until an operator acts; unknown: the answer does not say what
    happened to the action.
    """

    failure: Failure
    cause: Literal["overloaded", "away", "blocked", "unknown"]
    retry_after_s: float = 0.0


@dataclass(frozen=True, slots=True)
class TooMuch:
    """The whole request was refused for its size or for one action in it: it has to be sent in parts."""

    failure: Failure


@dataclass(frozen=True, slots=True)
class Stop:
    """The index takes no documents: the run ends."""

    error: BridgeError


Verdict = Outcome | Again | Stop


class _Error(msgspec.Struct):
    type: str = "unknown"
    reason: str | None = None
    caused_by: "_Error | None" = None

    def failure(self, status: int) -> Failure:
        causes, cause = [self.reason or self.type], self.caused_by
        while cause is not None:
            causes.append(cause.reason or cause.type)
            cause = cause.caused_by
        return Failure(self.type, ": ".join(causes), status)


class _Item(msgspec.Struct):
    id: str = msgspec.field(name="_id")
    status: int
    result: str | None = None
    error: _Error | None = None


class _BulkAnswer(msgspec.Struct):
    items: list[dict[str, _Item]]


class _WholeError(msgspec.Struct):
    error: _Error | str | None = None


def verdicts(answer: Answer, actions: Sequence[BulkAction]) -> list[Verdict] | TooMuch | Again | Stop:
    """One verdict per action, in their order; or one for the whole request, which began with `INDEX_MUST_EXIST`."""
    if answer.status == 200:
        return _of_items(answer, actions)
    failure = _whole_failure(answer)
    match answer.status:
        case 400 | 413:
            return TooMuch(failure)
        case 429 | 403 if failure.kind == _BLOCK:
            return Again(failure, "blocked")
        case status if status == _OVERLOADED:
            return Again(failure, "overloaded", retry_after_s(answer))
        case status if status in _AWAY:
            return Again(failure, "away", retry_after_s(answer))
        case 401 | 403 | 404:
            return Stop(_systemic(failure))
    return Again(failure, "unknown")


def retry_after_s(answer: Answer) -> float:
    """Seconds that the answer asks to wait, 0 if it does not; a date counts from the answer's own."""
    value = answer.headers.get("retry-after", "")
    try:
        return max(float(value), 0.0)
    except ValueError:
        pass
    try:
        until = parsedate_to_datetime(value)
        return max((until - parsedate_to_datetime(answer.headers.get("date", ""))).total_seconds(), 0.0)
    except (TypeError, ValueError):
        return 0.0


def _of_items(answer: Answer, actions: Sequence[BulkAction]) -> list[Verdict] | Again:
    try:
        items = [item for entry in decode(answer.body, _BulkAnswer).items for item in entry.values()]
    except msgspec.DecodeError as error:
        content = answer.headers.get("content-type", "no content type")
        return _unknown(f"the answer ({content}, {len(answer.body):,} bytes) is not a bulk answer: {error}")
    if [item.id for item in items] != [action.doc_id for action in (INDEX_MUST_EXIST, *actions)]:
        return _unknown(f"{len(actions)} actions were sent, the answer speaks of {len(items)} or of others")
    return [_of_item(item, action.op) for item, action in zip(items[1:], actions, strict=True)]


def _of_item(item: _Item, op: BulkOp) -> Verdict:
    if item.error is None:
        if item.result in ("created", "updated", "deleted"):
            return _WRITTEN
        if op == "delete" and item.result == "not_found":
            return Outcome("superseded")
        if item.result == "noop":
            return Outcome("unchanged" if op == "update" else "dropped_by_pipeline")
        return _unknown(f"an item has neither an error nor a known result: status {item.status}, {item.result!r}")
    failure = item.error.failure(item.status)
    match item.status:
        case 409:
            return Outcome("superseded", failure)
        case 404 if failure.kind == "document_missing_exception":
            return Outcome("superseded", failure)
        case 429 | 403 if failure.kind == _BLOCK:
            return Again(failure, "blocked")
        case status if status == _OVERLOADED:
            return Again(failure, "overloaded")
        case status if status in _AWAY:
            return Again(failure, "away")
        case 401 | 403 | 404:
            return Stop(_systemic(failure))
        case 400 | 413:
            return Outcome("dead_lettered", failure)
    return Again(failure, "unknown")


def _systemic(failure: Failure) -> BridgeError:
    if failure.status in (401, 403):
        return AccessDenied(
            f"the cluster refuses to write ({failure.status} {failure.kind}: {failure.reason}): give the user of "
            f"cluster.username the permission to write to this index"
        )
    return IndexUnsuitable(
        f"the index is gone ({failure.status} {failure.kind}: {failure.reason}): it was deleted while documents were "
        f"written to it; {GONE}"
    )


def _whole_failure(answer: Answer) -> Failure:
    try:
        error = decode(answer.body, _WholeError).error
    except msgspec.DecodeError:
        error = None
    if isinstance(error, _Error):
        return error.failure(answer.status)
    return Failure(f"http_{answer.status}", error or f"the whole request was answered {answer.status}", answer.status)


def _unknown(reason: str) -> Again:
    return Again(Failure("answer_not_understood", reason), "unknown")
