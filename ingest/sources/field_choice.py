"""Which fields of a source's objects are what, from options or a YAML file."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import yaml

from bridge.errors import UsageError

METADATA_ID = "_id"
"""A metadata field: OpenSearch takes it beside a document and refuses it inside."""


class FieldChoice(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the fields of a source's objects mean, and which of them the index gets under which name.

    `id_field` and `routing_field` are names in the source (dots for objects), `text_fields` names in the index,
    in the profile's order. `rename` (source name → index name) and `drop` speak of an object's own keys, not of
    keys inside objects; values keep every byte. `numbers`: columns whose cells are numbers, in formats that
    know text only.
    """

    text_fields: Sequence[str] = ()
    id_field: str = METADATA_ID
    routing_field: str | None = None
    rename: Mapping[str, str] = {}
    drop: Sequence[str] = ()
    numbers: Sequence[str] = ()


def read_field_choice(file: Path) -> FieldChoice:
    """Reads a YAML file with the names of `FieldChoice`.

    Raises:
        UsageError: the file cannot be read, is no YAML, or says something else.
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
