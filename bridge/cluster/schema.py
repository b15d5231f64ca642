"""Our object in an index's mapping: how it is made, read, and what an index must have to hold it.

Pure: mappings and settings in; mappings, profiles and findings (one sentence each) out. `bridge.cluster.index` talks
to the cluster.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypedDict

import msgspec

from bridge.cluster.dialects import Dialect, VectorEngine
from bridge.errors import IndexUnsuitable
from bridge.profile import (
    BESIDE_KEY,
    IMAGE_WEIGHT,
    META_KEY,
    SEPARATE_BOOST,
    SPARSE_WEIGHTS,
    TOGETHER_BOOST,
    IndexProfile,
    profile_of,
)

Dynamic = Literal["true", "false", "strict"]
"""What the cluster does with fields that the mapping lacks: add them, keep them unsearchable, refuse them."""

JsonObject = dict[str, Any]

_VECTOR_STAGES = ("vector", "hybrid", "smoothing")


class Bm25(NamedTuple):
    """How fast a word's occurrences stop counting (`k1`), and how much long documents pay for them (`b`, pivoted length
    normalisation: Singhal et al. 1996, https://doi.org/10.1145/243199.243206). As Lucene's defaults."""

    k1: float = 1.2
    b: float = 0.75

    def __str__(self) -> str:
        return f"k1 {self.k1:g}, b {self.b:g}"

    def settings(self) -> JsonObject:
        """The settings of an index whose text fields are scored so."""
        return {"index.similarity.default": {"type": "BM25", **self._asdict()}}

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> "Bm25 | None":
        """What an index with these settings scores by, where its mapping names nothing else; None: not by BM25."""
        default = settings.get("similarity", {}).get("default", {})
        if default.get("type", "BM25") != "BM25":
            return None
        return cls(*(float(default.get(name, value)) for name, value in cls._field_defaults.items()))


def fitted(profile: IndexProfile, dialect: Dialect, engine: VectorEngine = "lucene") -> IndexProfile:
    """The profile as a new index of this cluster serves it: how vectors and terms are held, the documents' codes, and
    without vectors no stage that needs them. Terms then take their place.

    Raises:
        IndexUnsuitable: there are to be vectors of pictures, and the cluster cannot search vectors.
    """
    if profile.image is not None and dialect.vector_type == "none":
        raise IndexUnsuitable(
            f"the cluster cannot search vectors, which pictures need: leave out --image-field {profile.image.field}, "
            f"or see what `neural-bridge doctor` says is missing"
        )
    if profile.image is not None and "image" not in profile.fusion.weights:
        weights = {**profile.fusion.weights, "image": IMAGE_WEIGHT}
        profile = msgspec.structs.replace(profile, fusion=msgspec.structs.replace(profile.fusion, weights=weights))
    made = msgspec.structs.replace(
        profile,
        vector_type=dialect.vector_type,
        vector_encoding=dialect.vector_encoding(engine),
        codes="planes" if dialect.vector_type != "none" else "terms",
        sparse=profile.sparse and msgspec.structs.replace(profile.sparse, terms_type=dialect.terms_type),
    )
    if made.has_vectors:
        return made
    left_out = ("vector",) if made.has_terms else _VECTOR_STAGES
    fusion = made.fusion
    if made.has_terms and "sparse" not in fusion.weights:
        fusion = msgspec.structs.replace(fusion, weights={**fusion.weights, **SPARSE_WEIGHTS})
    return msgspec.structs.replace(
        made, stages=[stage for stage in profile.stages if stage not in left_out], fusion=fusion
    )


class Analysers(TypedDict):
    """How a text field is analysed: arguments of `scored_together` and `object_properties`. None takes the index's
    default, and the same analyser for searches."""

    analyzer: str | None
    search_analyzer: str | None


def analysers(mapping: Mapping[str, Any], profile: IndexProfile) -> Analysers:
    """Those of the first text field, which predicted queries get."""
    first = field_mapping(mapping, profile.text_fields[0]) or {}
    return {"analyzer": first.get("analyzer"), "search_analyzer": first.get("search_analyzer")}


def scored_together(
    profile: IndexProfile,
    dialect: Dialect,
    mapping: Mapping[str, Any],
    *,
    analyzer: str | None,
    search_analyzer: str | None = None,
) -> IndexProfile:
    """The profile with `expanded_fields`: text fields of `mapping` that can be scored with the predicted queries.

    Those have the predicted queries' `analyzer` (None: the index's default) and the default similarity; none if these
    have a `search_analyzer`, because fields that are scored together read a search alike. A field of
    predicted queries alone is short, so BM25 overrates a single word in it; scored with the text it works as Doc2Query
    is meant to: more words, and other weights for those that are there.
    """
    if not dialect.combines_fields or profile.expanded_fields or search_analyzer is not None:
        return profile
    fields = {name: field_mapping(mapping, name) or {} for name in profile.text_fields}
    names = [name for name, field in fields.items() if _is_plain(field) and field.get("analyzer") == analyzer]
    if not names:
        return profile
    boost = TOGETHER_BOOST if profile.expansion_boost == SEPARATE_BOOST else profile.expansion_boost
    return msgspec.structs.replace(profile, expanded_fields=names, expansion_boost=boost)


def _is_plain(field: Mapping[str, Any]) -> bool:
    return field.get("type") == "text" and field.keys().isdisjoint({"search_analyzer", "similarity", "norms"})


def new_index(
    profile: IndexProfile,
    dialect: Dialect,
    *,
    analyzer: str | None = "english",
    engine: VectorEngine = "lucene",
    properties: Mapping[str, Any] | None = None,
    settings: Mapping[str, Any] | None = None,
    dynamic: Dynamic = "true",
) -> JsonObject:
    """The body that creates an index for `profile`.

    Text fields and predicted queries get `analyzer`, or the index's default if it is None. `properties` maps the
    application's other fields, and overrides a text field of the same name; `settings` are more index settings.
    """
    mapped = _mapped(profile, analyzer, properties)
    kept = _kept(profile, dialect, analyzer, mapped, engine)
    search_analyzer = analysers({"properties": mapped}, profile)["search_analyzer"]
    ours = object_properties(kept, dialect, analyzer=analyzer, search_analyzer=search_analyzer, engine=engine)
    return {
        "settings": {**dialect.vector_settings(), **(settings or {})},
        "mappings": {
            "dynamic": dynamic,
            "_meta": {META_KEY: kept.to_meta()},
            "properties": mapped | ours,
        },
    }


def new_profile(
    profile: IndexProfile,
    dialect: Dialect,
    *,
    analyzer: str | None = "english",
    properties: Mapping[str, Any] | None = None,
) -> IndexProfile:
    """The profile as a new index keeps it: see `new_index`."""
    return _kept(profile, dialect, analyzer, _mapped(profile, analyzer, properties))


def _kept(
    profile: IndexProfile, dialect: Dialect, analyzer: str | None, mapped: JsonObject, engine: VectorEngine = "lucene"
) -> IndexProfile:
    mapping = {"properties": mapped}
    search_analyzer = analysers(mapping, profile)["search_analyzer"]
    made = fitted(profile, dialect, engine)
    return scored_together(made, dialect, mapping, analyzer=analyzer, search_analyzer=search_analyzer)


def _mapped(profile: IndexProfile, analyzer: str | None, properties: Mapping[str, Any] | None) -> JsonObject:
    """The application's fields."""
    mapped: JsonObject = {}
    for name in profile.text_fields:
        put_field(mapped, name, _text(analyzer))
    if profile.image is not None:
        # A picture in base64 would become thousands of words.
        put_field(mapped, profile.image.field, {"type": "keyword", "index": False, "doc_values": False})
    return mapped | dict(properties or {})


def flattened(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Settings by their full names, as in `routing.allocation.enable`."""
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from flattened(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def object_properties(
    profile: IndexProfile,
    dialect: Dialect,
    *,
    analyzer: str | None,
    search_analyzer: str | None = None,
    engine: VectorEngine = "lucene",
) -> JsonObject:
    """The mapping of our object alone, to add to an existing index. `analyzer` None takes the index's default. The
    synonyms of a `search_analyzer` count for predicted queries, too, unless they are scored with the texts."""
    searched = {"search_analyzer": search_analyzer} if search_analyzer and not profile.expanded_fields else {}
    fields: JsonObject = {
        "predicted_queries": _text(analyzer) | searched,
        "stamp": {"type": "keyword"},
    }
    if dialect.vector_type != "none":
        vector = dialect.vector_field(profile.dimension, engine, profile.vector_encoding)
        fields |= {"embedding": vector} if profile.passages.layout == "single" else {"passages": _passages(vector)}
    if profile.has_codes:
        fields["code"] = {"type": "binary", "doc_values": True}
    if profile.sparse:
        fields["terms"] = {"type": profile.sparse.terms_type}
    if profile.image:
        fields["image_embedding"] = dialect.vector_field(profile.image.dimension, engine, profile.vector_encoding)
    path = profile.generation_field.split(".")
    for name in reversed(path):
        fields = {name: {"type": "object", "dynamic": "strict", "properties": fields}}
    return fields


def _passages(vector: JsonObject) -> JsonObject:
    offset = {"type": "integer", "index": False}
    fields = {"embedding": vector, "start": offset, "end": offset}
    return {"type": "nested", "dynamic": "strict", "properties": fields}


def read_profile(mapping: Mapping[str, Any], *, index: str) -> IndexProfile | None:
    """The profile that an index's searches use; None if the index is not enriched.

    Raises:
        IndexUnsuitable: the profile cannot be read.
    """
    return profile_of(mapping.get("_meta"), index=index)


def read_beside(mapping: Mapping[str, Any], *, index: str) -> IndexProfile | None:
    """The profile of the second generation; None if there is none.

    Raises:
        IndexUnsuitable: the profile cannot be read.
    """
    beside = mapping.get("_meta", {}).get(BESIDE_KEY)
    return profile_of({META_KEY: beside}, index=index) if beside is not None else None


def without_ours(meta: Mapping[str, Any]) -> JsonObject:
    """A mapping's `_meta` as it was before the bridge came."""
    return {key: value for key, value in meta.items() if key not in (META_KEY, BESIDE_KEY)}


def our_fields(mapping: Mapping[str, Any], object_field: str) -> list[str]:
    """Full names of all fields in our object, of every generation that the mapping still has."""
    found = field_mapping(mapping, object_field) or {}
    return [f"{object_field}.{name}" for name in leaves(found)]


def leaves(mapping: Mapping[str, Any]) -> Iterator[str]:
    """Full names of a mapping's fields, objects themselves left out."""
    for name, field in mapping.get("properties", {}).items():
        if "properties" in field:
            yield from (f"{name}.{inner}" for inner in leaves(field))
        else:
            yield name


def field_mapping(mapping: Mapping[str, Any], name: str) -> JsonObject | None:
    """The mapping of the field with this full name (dots for objects), or None."""
    found: JsonObject = dict(mapping)
    for part in name.split("."):
        properties = found.get("properties")
        if not isinstance(properties, dict) or part not in properties:
            return None
        found = properties[part]
    return found


_WITHOUT_TEXT = {
    *("boolean", "binary", "geo_point", "geo_shape", "xy_point", "xy_shape", "point", "shape", "join", "percolator"),
    *("knn_vector", "dense_vector", "sparse_vector", "rank_feature", "rank_features"),
}
"""Types of fields that hold no text in the documents themselves."""


def without_text(mapping: Mapping[str, Any], names: Sequence[str]) -> Iterator[str]:
    """Which of these fields of a mapping hold no text, one sentence each."""
    for name in names:
        field = field_mapping(mapping, name) or {}
        if field.get("type") == "alias":
            yield f"field {name} is an alias: name {field.get('path')}, for which it stands"
        elif "properties" in field:
            yield f"field {name} is an object: name fields in it, such as {name}.{next(leaves(field), '…')}"
        elif field.get("type") in _WITHOUT_TEXT:
            yield f"field {name} is of type {field['type']}, which holds no text"


def put_field(properties: JsonObject, name: str, mapping: JsonObject) -> None:
    """Adds a field with a dotted name at its place among the objects."""
    *objects, last = name.split(".")
    for part in objects:
        properties = properties.setdefault(part, {}).setdefault("properties", {})
    properties[last] = mapping


def _text(analyzer: str | None) -> JsonObject:
    return {"type": "text", "analyzer": analyzer} if analyzer else {"type": "text"}


_DEFAULT_FIELD_LIMIT = 1000
_VECTOR_TYPES = ("knn_vector", "dense_vector")


def differences(profile: IndexProfile, mapping: Mapping[str, Any], settings: Mapping[str, Any]) -> list[str]:
    """Why an index cannot be written for `profile`, one sentence each; empty if it can.

    `mapping` and `settings` as the cluster gives them, settings without the outer `index` object.
    """
    return [
        *_wrong_fields(profile, mapping),
        *_wrong_settings(profile, mapping, settings),
    ]


def in_place_obstacles(
    profile: IndexProfile, dialect: Dialect, mapping: Mapping[str, Any], settings: Mapping[str, Any]
) -> list[str]:
    """What keeps an index that is in use from being enriched in place, one sentence each.

    An update reads the stored source, sets our object and writes the whole back: what the source lacks would be lost.
    Our fields must fit the mapping that they are added to.
    """
    ours = object_properties(profile, dialect, analyzer=None)
    extended = {**mapping, "properties": _merged(mapping.get("properties", {}), ours)}
    return [
        *differences(profile, extended, settings),
        *incomplete_source(mapping),
        *_reconstructed_source(settings),
        *_unmapped(profile, mapping),
    ]


def _merged(properties: Mapping[str, Any], more: Mapping[str, Any]) -> JsonObject:
    """Fields that are there stay as they are; those that an object lacks are added to it."""
    merged = {**more, **properties}
    for name in properties.keys() & more.keys():
        inner = _merged(properties[name].get("properties", {}), more[name].get("properties", {}))
        merged[name] = {**properties[name], **({"properties": inner} if inner else {})}
    return merged


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
    # After `undo` the fields stay in the mapping without a profile: then they are ours; older ones have no codes, no
    # terms and no pictures.
    taken = field_mapping(mapping, profile.object_field) is not None and META_KEY not in mapping.get("_meta", {})
    if taken and missing_fields(msgspec.structs.replace(profile, codes="none", sparse=None, image=None), mapping):
        yield f"field {profile.object_field} is there already, and is the application's"


def missing_fields(profile: IndexProfile, mapping: Mapping[str, Any]) -> list[str]:
    """Full names of the fields of ours that the mapping lacks."""
    ours = [profile.predicted_queries_field, profile.stamp_field, *profile.encoded_fields]
    return [name for name in ours if field_mapping(mapping, name) is None]


def _wrong_fields(profile: IndexProfile, mapping: Mapping[str, Any]) -> Iterator[str]:
    for name in missing_fields(profile, mapping):
        yield f"field {name} is not in the mapping"
    expected: dict[str, tuple[str, ...]] = {
        profile.predicted_queries_field: ("text",),
        profile.stamp_field: ("keyword",),
        profile.embedding_field: _VECTOR_TYPES,
        profile.image_embedding_field: _VECTOR_TYPES,
        profile.code_field: ("binary",),
        profile.terms_field: (profile.sparse.terms_type,) if profile.sparse else ("rank_features", "sparse_vector"),
    }
    for name, types in expected.items():
        found = field_mapping(mapping, name)
        if found is not None and found.get("type") not in types:
            yield f"field {name} is of type {found.get('type', 'object')}, expected {' or '.join(types)}"
    encoded = [(profile.embedding_field, profile.encoder.name, profile.dimension)]
    if profile.image is not None:
        encoded.append((profile.image_embedding_field, profile.image.encoder.name, profile.image.dimension))
    for name, encoder, given in encoded:
        vector = field_mapping(mapping, name) or {}
        dimension = vector.get("dimension", vector.get("dims"))
        if dimension is not None and dimension != given:
            yield f"field {name} has dimension {dimension}, the encoder {encoder} gives {given}"
    if profile.passages.layout == "nested":
        passages = field_mapping(mapping, profile.passages_field)
        if passages is not None and passages.get("type") != "nested":
            yield f"field {profile.passages_field} is not nested"


def _wrong_settings(profile: IndexProfile, mapping: Mapping[str, Any], settings: Mapping[str, Any]) -> Iterator[str]:
    vector = field_mapping(mapping, profile.embedding_field) or {}
    if vector.get("type") == "knn_vector" and not _is_true(settings.get("knn")):
        yield "index.knn was never set to true, which is only possible when an index is created"
    mapping_settings = settings.get("mapping")
    limits = mapping_settings.get("total_fields", {}) if isinstance(mapping_settings, dict) else {}
    limit = int(limits.get("limit", _DEFAULT_FIELD_LIMIT))
    wanted = count_fields(mapping) + len(missing_fields(profile, mapping))
    if wanted > limit:
        yield (
            f"the mapping would have {wanted} fields, setting index.mapping.total_fields.limit allows {limit}: raise it"
        )


DISK_BLOCK = "read_only_allow_delete"
"""The block that clusters set while a disk is full."""


def write_blocks(settings: Mapping[str, Any]) -> Iterator[str]:
    """Why an index takes no documents as it is set now, one sentence each."""
    if _is_true(settings.get("verified_before_close")):
        yield "it is closed"
    blocks = settings.get("blocks")
    for block in ("write", "read_only", DISK_BLOCK):
        if isinstance(blocks, dict) and _is_true(blocks.get(block)):
            yield f"setting index.blocks.{block} is true"


def pipeline_risks(settings: Mapping[str, Any]) -> Iterator[str]:
    """What an index's ingest pipelines mean for writes in place, one sentence at most."""
    if any(settings.get(name, "_none") != "_none" for name in ("default_pipeline", "final_pipeline")):
        yield "it has an ingest pipeline, which sees our updates too, and may drop or change documents"


def count_fields(mapping: Mapping[str, Any]) -> int:
    """Fields, objects and multi-fields of a mapping: what `index.mapping.total_fields.limit` counts."""
    inner = {**mapping.get("properties", {}), **mapping.get("fields", {})}
    return sum(1 + count_fields(field) for field in inner.values())


def _is_true(value: object) -> bool:
    """Settings come back as text."""
    return value is True or value == "true"
