"""What a source of documents is: items in a fixed order, each a document or a named problem.

Nothing is skipped silently, so items can be counted, and a run that was stopped goes on after the items that
it answered for. `ingest.file_source` reads files, `ingest.index_source` an index, `ingest.replay` dead
letters.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from bridge.records import Document, SourcePosition
from bridge.text.passages import field_texts, value_at
from ingest.sources.field_choice import METADATA_ID, FieldChoice
from ingest.sources.json_objects import JsonProblem, parse_object, reshaped, without_key

SAMPLE_BYTES = 2_000
"""How much is kept of something that is too long to keep."""

_MAX_ID_BYTES = 512
"""OpenSearch refuses longer ids."""


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Something in the source that is no document: what becomes a dead letter.

    `raw` is what was there, or its beginning where it is too long to keep; `doc_id` where it has one.
    """

    position: SourcePosition
    kind: str
    reason: str
    raw: bytes
    doc_id: str | None = None


SourceItem = Document | Unreadable


class Source(Protocol):
    """What the pipeline reads."""

    identity: str
    """Changes whenever the items or their order may have: a checkpoint is bound to it."""

    resumable: bool
    """Whether the same items come in the same order when it is read again."""

    def items(self, skip: int = 0) -> Iterator[SourceItem]:
        """The items after the first `skip`.

        Raises:
            UsageError: the source does not exist or cannot be read.
        """

    def total(self) -> int | None:
        """How many items there are, where that is known without reading them all."""


class DocumentsInMemory:
    """Documents that Python already holds."""

    resumable = False

    def __init__(self, documents: Sequence[Document], *, identity: str = "memory") -> None:
        """`identity` names the documents in messages."""
        self._documents = documents
        self.identity = identity

    def items(self, skip: int = 0) -> Iterator[SourceItem]:
        """See `Source`."""
        return iter(self._documents[skip:])

    def total(self) -> int:
        """See `Source`."""
        return len(self._documents)


def document_from_json(
    body: bytes,
    position: SourcePosition,
    fields: FieldChoice,
    *,
    doc_id: str | None = None,
    routing: str | None = None,
) -> SourceItem:
    """Reads one JSON object as a document; `doc_id` and `routing` where they stand beside the object.

    The bytes of the object reach `Document.body` as they are, but for the keys that `fields` renames or drops,
    and for an id that stands in `_id`, where OpenSearch refuses it.
    """
    inside = doc_id is None
    try:
        values = parse_object(body)
        doc_id = _checked(doc_id, METADATA_ID) if doc_id is not None else _identifier(values, fields.id_field)
        if routing is None and fields.routing_field and value_at(values, fields.routing_field) is not None:
            routing = _identifier(values, fields.routing_field)
        if inside and fields.id_field == METADATA_ID:
            body = without_key(body, METADATA_ID)
        if fields.rename or fields.drop:
            body = reshaped(body, rename=fields.rename, drop=fields.drop)
            values = {fields.rename.get(name, name): value for name, value in values.items() if name not in fields.drop}
    except JsonProblem as problem:
        return Unreadable(position, problem.kind, str(problem), body, doc_id)
    return Document(doc_id, body, field_texts(values, fields.text_fields), position, routing)


def _identifier(values: Mapping[str, Any], field: str) -> str:
    value = value_at(values, field)
    if value is None:
        raise JsonProblem("invalid_id", f"field {field} is missing: ids are never made up, name the field that has it")
    # Numbers come here as they were written: see `parse_object`.
    if not isinstance(value, str):
        raise JsonProblem("invalid_id", f"field {field} is neither text nor number")
    return _checked(value, field)


def _checked(value: str, field: str) -> str:
    if not value:
        raise JsonProblem("invalid_id", f"field {field} is empty: every document needs an id of its own")
    if (length := len(value.encode())) > _MAX_ID_BYTES:
        raise JsonProblem("invalid_id", f"field {field} has {length} bytes, OpenSearch allows {_MAX_ID_BYTES}")
    return value
