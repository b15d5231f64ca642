"""What an index must have to hold our object, and to be enriched where it is.

Pure: mappings and settings in, findings out, one sentence each.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from bridge.cluster.dialects import Dialect
from bridge.cluster.schema import field_mapping
from bridge.profile import META_KEY, IndexProfile

_KNN_SETTING = "index.knn"

_DEFAULT_FIELD_LIMIT = 1000
_VECTOR_TYPES = ("knn_vector", "dense_vector")


def differences(profile: IndexProfile, mapping: Mapping[str, Any], settings: Mapping[str, Any]) -> list[str]:
    """What keeps an index from being written for `profile`, one sentence each; empty where nothing does.

    `mapping` and `settings` as the cluster gives them, settings without the outer `index` object.
    """
    return [
        *_wrong_fields(profile, mapping),
        *_wrong_settings(profile, mapping, settings),
    ]


def in_place_obstacles(
    profile: IndexProfile, dialect: Dialect, mapping: Mapping[str, Any], settings: Mapping[str, Any]
) -> list[str]:
    """What keeps an index that is in use from being enriched where it is, one sentence each.

    An update reads the stored source, sets our object and writes the whole back: what the source lacks
    would be lost.
    """
    return [
        *incomplete_source(mapping),
        *_reconstructed_source(settings),
        *_unmapped(profile, mapping),
        *(
            f"setting {name} is not {str(value).lower()}, and it can only be set when an index is created"
            for name, value in dialect.vector_settings().items()
            if name == _KNN_SETTING and not _is_true(settings.get("knn"))
        ),
    ]


def incomplete_source(mapping: Mapping[str, Any]) -> list[str]:
    """Why the stored documents of an index are not whole, one sentence each."""
    source = mapping.get("_source", {})
    found = ["_source is disabled: there is nothing to start from"] if source.get("enabled") is False else []
    for filtered in ("includes", "excludes"):
        if source.get(filtered):
            found.append(f"_source.{filtered} ({', '.join(source[filtered])}): what is not stored would be lost")
    return found


def _reconstructed_source(settings: Mapping[str, Any]) -> Iterator[str]:
    derived = settings.get("derived_source")
    if isinstance(derived, Mapping) and _is_true(derived.get("enabled")):
        yield "setting index.derived_source.enabled is true: an update would start from a reconstruction"
    # Elasticsearch's way: index.mapping.source.mode.
    match settings.get("mapping"):
        case {"source": {"mode": "synthetic"}}:
            yield "setting index.mapping.source.mode is synthetic: an update would start from a reconstruction"


def _unmapped(profile: IndexProfile, mapping: Mapping[str, Any]) -> Iterator[str]:
    for name in profile.text_fields:
        if field_mapping(mapping, name) is None:
            yield f"text field {name} is not in the mapping"
    # After `undo` the fields stay in the mapping without a profile: then they are ours.
    taken = field_mapping(mapping, profile.object_field) is not None and META_KEY not in mapping.get("_meta", {})
    if taken and missing_fields(profile, mapping):
        yield f"field {profile.object_field} is there already, and is the application's"


def missing_fields(profile: IndexProfile, mapping: Mapping[str, Any]) -> list[str]:
    """Full names of the fields of ours that the mapping lacks."""
    ours = [profile.predicted_queries_field, profile.stamp_field]
    if profile.vector_type != "none":
        ours.append(profile.embedding_field)
    return [name for name in ours if field_mapping(mapping, name) is None]


def _wrong_fields(profile: IndexProfile, mapping: Mapping[str, Any]) -> Iterator[str]:
    for name in missing_fields(profile, mapping):
        yield f"field {name} is not in the mapping"
    expected: dict[str, tuple[str, ...]] = {
        profile.predicted_queries_field: ("text",),
        profile.stamp_field: ("keyword",),
        profile.embedding_field: _VECTOR_TYPES,
    }
    for name, types in expected.items():
        found = field_mapping(mapping, name)
        if found is not None and found.get("type") not in types:
            yield f"field {name} is of type {found.get('type', 'object')}, expected {' or '.join(types)}"
    vector = field_mapping(mapping, profile.embedding_field) or {}
    dimension = vector.get("dimension", vector.get("dims"))
    if dimension is not None and dimension != profile.dimension:
        yield (
            f"field {profile.embedding_field} has dimension {dimension}, the encoder {profile.encoder.name} gives "
            f"{profile.dimension}"
        )
    if profile.passages.layout == "nested":
        passages = field_mapping(mapping, profile.passages_field)
        if passages is not None and passages.get("type") != "nested":
            yield f"field {profile.passages_field} is not nested"


def _wrong_settings(profile: IndexProfile, mapping: Mapping[str, Any], settings: Mapping[str, Any]) -> Iterator[str]:
    vector = field_mapping(mapping, profile.embedding_field) or {}
    if vector.get("type") == "knn_vector" and not _is_true(settings.get("knn")):
        yield "setting index.knn is not true, and it can only be set when an index is created"
    mapping_settings = settings.get("mapping")
    limits = mapping_settings.get("total_fields", {}) if isinstance(mapping_settings, dict) else {}
    limit = int(limits.get("limit", _DEFAULT_FIELD_LIMIT))
    wanted = count_fields(mapping) + len(missing_fields(profile, mapping))
    if wanted > limit:
        yield f"the mapping would have {wanted} fields, setting index.mapping.total_fields.limit allows {limit}"


def write_blocks(settings: Mapping[str, Any]) -> Iterator[str]:
    """Why an index takes no documents as it is set now, one sentence each."""
    if _is_true(settings.get("verified_before_close")):
        yield "it is closed"
    blocks = settings.get("blocks")
    for block in ("write", "read_only", "read_only_allow_delete"):
        if isinstance(blocks, dict) and _is_true(blocks.get(block)):
            yield f"setting index.blocks.{block} is true"


def count_fields(mapping: Mapping[str, Any]) -> int:
    """Fields, objects and multi-fields of a mapping: what `index.mapping.total_fields.limit` counts."""
    inner = {**mapping.get("properties", {}), **mapping.get("fields", {})}
    return sum(1 + count_fields(field) for field in inner.values())


def _is_true(value: object) -> bool:
    """Settings come back as text."""
    return value is True or value == "true"
