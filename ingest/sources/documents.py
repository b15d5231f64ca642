"""How an entry of a file becomes a document: which field is its id, its routing, its text."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import yaml

from bridge.errors import UsageError
from bridge.records import Document
from bridge.text import field_texts, first_text, value_at
from ingest.sources.json_bytes import Entry, JsonProblem, parse_object, reshaped, without_key
from ingest.sources.source import SourceItem, Unreadable

METADATA_ID = "_id"
"""A metadata field: OpenSearch takes it beside a document and refuses it inside."""

_MAX_ID_BYTES = 512
"""OpenSearch refuses longer ids."""


class FieldChoice(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the fields of a source's objects mean, and which of them the index gets under which name.

    `id_field` and `routing_field` are names in the source (dots for objects), `text_fields` names in the index,
    in the profile's order; `image_field` is the one there that names or holds a picture. `rename` (source name → index
    name) and `drop` apply to an object's own keys, not to keys inside objects; values keep every byte. `numbers`:
    columns whose cells are numbers, in formats that know text only.
    """

    text_fields: Sequence[str] = ()
    id_field: str = METADATA_ID
    routing_field: str | None = None
    rename: Mapping[str, str] = {}
    drop: Sequence[str] = ()
    numbers: Sequence[str] = ()
    image_field: str | None = None


def read_field_choice(file: Path) -> FieldChoice:
    """Reads a YAML file whose keys are the fields of `FieldChoice`.

    Raises:
        UsageError: the file cannot be read, is no YAML, or has other keys or values.
    """
    try:
        content = yaml.safe_load(file.read_bytes())
    except OSError as error:
        raise UsageError(f"field mapping {file} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, ValueError) as error:
        raise UsageError(f"field mapping {file} is no YAML: {error}") from error
    try:
        return msgspec.convert(content or {}, FieldChoice)
    except msgspec.ValidationError as error:
        known = ", ".join(FieldChoice.__struct_fields__)
        raise UsageError(f"field mapping {file}: {error}; known keys: {known}") from error


def document_of(entry: Entry, fields: FieldChoice) -> SourceItem:
    """Reads an entry as a document.

    The bytes of the object reach `Document.body` as they are, except for the keys that `fields` renames or drops,
    and for an id in `_id`, which OpenSearch refuses there.
    """
    body, doc_id, routing = entry.body, entry.doc_id, entry.routing
    try:
        values = parse_object(body)
        if doc_id is not None:
            _check_id(doc_id, METADATA_ID)
        else:
            doc_id = _identifier(values, fields.id_field)
            if fields.id_field == METADATA_ID:
                body = without_key(body, METADATA_ID)
        if routing is None and fields.routing_field and value_at(values, fields.routing_field) is not None:
            routing = _identifier(values, fields.routing_field)
        if fields.rename or fields.drop:
            body = reshaped(body, rename=fields.rename, drop=fields.drop)
            values = {fields.rename.get(name, name): value for name, value in values.items() if name not in fields.drop}
    except JsonProblem as problem:
        return Unreadable(entry.position, problem.kind, str(problem), body, doc_id)
    texts, image = field_texts(values, fields.text_fields), first_text(values, fields.image_field)
    return Document(doc_id, body, texts, entry.position, routing, image=image)


def _identifier(values: Mapping[str, Any], field: str) -> str:
    value = value_at(values, field)
    if value is None:
        raise JsonProblem("invalid_id", f"field {field} is missing: ids are never made up, name the field that has it")
    # Numbers come here as they were written: see `parse_object`.
    if not isinstance(value, str):
        raise JsonProblem("invalid_id", f"field {field} is neither text nor number")
    _check_id(value, field)
    return value


def _check_id(value: str, field: str) -> None:
    if not value:
        raise JsonProblem("invalid_id", f"field {field} is empty: every document needs an id of its own")
    if (length := len(value.encode())) > _MAX_ID_BYTES:
        raise JsonProblem("invalid_id", f"field {field} has {length} bytes, OpenSearch allows {_MAX_ID_BYTES}")
