"""The companion of an index: what the bridge made of its documents, in an index of our own beside it.

The application's index is only read. A companion's document has the same `_id` and routing, and holds the
application's text fields, indexed as there, and our object, as a document that is enriched in place does. It is
written whole each time, so `_source` can leave out what only has to be searched.

A document's version in the companion is its sequence number in the application's index plus one: of two writers, the
one that read the newer document wins. Its stamp names the texts that it was made of: it counts in a search as long as
these are the texts that the application's index returns to the caller.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any

import msgspec
from opensearchpy import NotFoundError, OpenSearch

from bridge.cluster import index as indices
from bridge.cluster.connection import capabilities
from bridge.cluster.dialects import Dialect, dialect_of
from bridge.cluster.index import IndexState
from bridge.cluster.schema import (
    JsonObject,
    analysers,
    field_mapping,
    fitted,
    flattened,
    object_properties,
    put_field,
    scored_together,
)
from bridge.errors import AccessDenied, ClusterBlocked, IndexUnsuitable
from bridge.profile import BESIDE_KEY, META_KEY, IndexProfile, companion_of, companions_of

SOURCE_KEY = "neural_bridge_source"
"""The key of `_meta` for the identity of the index that a companion was made from: a later index of the same name
counts its sequence numbers anew."""

_TEXT_PARAMETERS = {
    *("analyzer", "search_analyzer", "search_quote_analyzer", "similarity", "norms", "index_options"),
    "position_increment_gap",
}
"""What decides how a text field is searched and scored."""

_COPIED = (
    *("number_of_shards", "number_of_replicas", "auto_expand_replicas", "routing_partition_size"),
    *("analysis", "similarity", "max_ngram_diff", "max_shingle_diff"),
)

_OURS_ALONE = {
    "index.hidden": True,
    "index.default_pipeline": "_none",
    "index.final_pipeline": "_none",
    "index.codec": "best_compression",
}
"""Whatever the index templates of the cluster say of such names. Searches read doc values alone, and what is stored,
until a merge even what `_source` leaves out, may take its time."""


def new_companion(source: IndexState, profile: IndexProfile, dialect: Dialect, *, key: str = META_KEY) -> JsonObject:
    """The body that creates the companion of `source`, enriched for `profile`, which `_meta` holds under `key`."""
    analysed = analysers(source.mapping, profile)
    ours = msgspec.structs.replace(fitted(profile, dialect), beside=source.name)
    kept = scored_together(ours, dialect, source.mapping, **analysed)
    properties = object_properties(kept, dialect, **analysed)
    put_field(properties, kept.entry_id_field, {"type": "keyword", "index": False})
    for name in kept.text_fields:
        put_field(properties, name, _text(source.mapping, name))
    mapping: JsonObject = {
        "dynamic": "strict",
        "_meta": {key: kept.to_meta(), SOURCE_KEY: indices.identity(source)},
        "_source": {"excludes": [*kept.text_fields, *kept.encoded_fields]},
        "properties": properties,
    }
    if "_routing" in source.mapping:
        mapping["_routing"] = source.mapping["_routing"]
    settings = {**copied_settings(source.settings), **dialect.vector_settings(), **_OURS_ALONE}
    return {"settings": settings, "mappings": mapping}


def copied_settings(settings: Mapping[str, Any]) -> JsonObject:
    """Those settings of an index that decide where its documents lie, and how texts are analysed and scored."""
    return {
        f"index.{name}": value
        for name, value in flattened(settings)
        if any(name == copied or name.startswith(f"{copied}.") for copied in _COPIED)
    }


def find(client: OpenSearch, index: str, prefix: str) -> IndexState | None:
    """The companion that serves searches of an index; None if there is none, or none that this user may know of.

    Raises:
        IndexUnsuitable: an index of that name is no companion of this one.
    """
    return find_both(client, index, prefix)[0]


def find_both(client: OpenSearch, index: str, prefix: str) -> tuple[IndexState | None, IndexState | None]:
    """The companion that serves searches of an index, and the one of another generation beside it, with its profile;
    None for what there is none of, or none that this user may know of.

    The second of the two names decides: the companion of that name serves if its profile is under the key of serving
    ones. So one change of its mapping switches searches from one to the other.

    Raises:
        IndexUnsuitable: as `find`.
    """
    names = companions_of(index, prefix)
    try:
        found = indices.find_all(client, names)
    except AccessDenied:
        return None, None
    first, second = map(found.get, names)
    for state in filter(None, (first, second)):
        profile = state.profile or state.beside
        if profile is None or profile.beside != index:
            raise IndexUnsuitable(
                f"index {state.name} is no companion of {index}: choose another companion.prefix, or delete that index"
            )
    serving, other = (second, first) if second is not None and second.profile is not None else (first, second)
    if other is not None:
        other = replace(other, profile=other.profile or other.beside, beside=None)
    return serving, other


def serve(client: OpenSearch, index: str, prefix: str, generation: int) -> None:
    """Lets the companion of a generation serve searches, in one mapping update; nothing changes if it does already.

    Raises:
        IndexUnsuitable: there is no such companion.
    """
    serving, other = find_both(client, index, prefix)
    if _is_at(serving, generation):
        return
    if not _is_at(other, generation):
        raise IndexUnsuitable(f"index {index} has no companion of generation {generation}: nothing to change to")
    first, second = companions_of(index, prefix)
    old, new = (META_KEY, BESIDE_KEY) if other and other.name == first else (BESIDE_KEY, META_KEY)
    indices.put_meta(client, second, lambda meta: {new if key == old else key: each for key, each in meta.items()})


def enriched(client: OpenSearch, index: str, prefix: str) -> IndexState:
    """The index that holds the profile of `index`: itself, or its companion.

    Raises:
        IndexUnsuitable: neither does, the companion was made from an earlier index of that name, or the name is of a
            companion.
    """
    source = indices.look(client, index)
    indices.refuse_companion(source)
    if source.profile is not None:
        return source
    companion = find(client, source.name, prefix)
    if companion is None:
        raise IndexUnsuitable(
            f"index {source.name} is not enriched, and has no companion {companion_of(source.name, prefix)}: enrich it "
            f"with `neural-bridge backfill {source.name}`"
        )
    if not is_of(companion, source):
        raise IndexUnsuitable(
            f"index {source.name} was made anew after {companion.name} was made beside it: run "
            f"`neural-bridge backfill {source.name}`"
        )
    return companion


def refuse_ingest(client: OpenSearch, state: IndexState, prefix: str) -> None:
    """Keeps whole documents of ours out of companions, and out of the indices that have one.

    Raises:
        IndexUnsuitable: the index is one of these.
    """
    indices.refuse_companion(state)
    if state.profile is None and (ours := find(client, state.name, prefix)) is not None:
        raise IndexUnsuitable(
            f"index {state.name} is enriched beside, in {ours.name}, and only its application writes to it: write the "
            f"documents as ever, then enrich them with `neural-bridge backfill {state.name}`, or as they come with "
            f"`neural-bridge follow {state.name}`"
        )


def of(client: OpenSearch, source: IndexState, profile: IndexProfile, prefix: str) -> IndexState | None:
    """The companion for the profile's generation that was made from this very index, and from no earlier one of its
    name; None if there is none.

    Raises:
        IndexUnsuitable: no companion can be made of the index for this profile; or see `find`.
    """
    if source.profile is not None:
        raise IndexUnsuitable(
            f"index {source.name} is enriched in place, and searches use that: go on with `neural-bridge backfill "
            f"{source.name}`, or begin anew after `neural-bridge undo {source.name}`"
        )
    if found := _unreadable(source, profile):
        raise IndexUnsuitable(f"index {source.name} cannot be enriched; nothing was changed: {'; '.join(found)}")
    name = companion_of(source.name, prefix, profile.generation)
    both = (state for state in find_both(client, source.name, prefix) if state is not None)
    return next((state for state in both if state.name == name and is_of(state, source)), None)


def is_of(companion: IndexState, source: IndexState) -> bool:
    """Whether a companion was made from this very index, and not from an earlier one of the same name."""
    made_from: object = companion.mapping["_meta"].get(SOURCE_KEY)
    return made_from == indices.identity(source)


def create(client: OpenSearch, source: IndexState, profile: IndexProfile, prefix: str) -> IndexState:
    """Makes the companion of `source`, empty, in the place of those that were made from an earlier index of its name.
    It serves searches unless another does: see `find_both`.

    Raises:
        IndexUnsuitable: it exists already, or the cluster refuses the mapping.
    """
    both = [state for state in find_both(client, source.name, prefix) if state]
    if old := [state for state in both if not is_of(state, source)]:
        _delete(client, old)
    name = companion_of(source.name, prefix, profile.generation)
    serves = len(both) == len(old) or name == companion_of(source.name, prefix)
    key = META_KEY if serves else BESIDE_KEY
    body = new_companion(source, profile, dialect_of(capabilities(client)), key=key)
    indices.create_index(client, name, body)
    # An index template may have made it a part of an application's alias.
    if aliases := client.indices.get(index=name)[name]["aliases"]:
        client.indices.delete_alias(index=name, name=",".join(aliases))
    return indices.look(client, name)


def remove(client: OpenSearch, index: str, prefix: str, *, generation: int | None = None) -> int | None:
    """Deletes the companions of an index, which may be gone itself, or only that of one generation; the number of their
    documents, None if there is none.

    Raises:
        IndexUnsuitable: that generation serves searches; or see `find`.
    """
    both = find_both(client, index, prefix)
    if generation is not None and _is_at(both[0], generation):
        raise IndexUnsuitable(f"generation {generation} of {index} serves searches: it is not dropped")
    there = [state for state in both if state and (generation is None or _is_at(state, generation))]
    return _delete(client, there) if there else None


def _is_at(state: IndexState | None, generation: int) -> bool:
    return state is not None and state.profile is not None and state.profile.generation == generation


def _delete(client: OpenSearch, states: Sequence[IndexState]) -> int:
    """Deletes indices; the number of their documents."""
    documents = 0
    for state in states:
        # It may be going away already: a command that was killed asked for that.
        with suppress(NotFoundError, ClusterBlocked):
            documents += indices.count(client, state.name)
        with suppress(NotFoundError):
            client.indices.delete(index=state.name)
    return documents


def _unreadable(source: IndexState, profile: IndexProfile) -> list[str]:
    """Why the texts of an index cannot be read, one sentence each."""
    stored = source.mapping.get("_source", {})
    found = ["_source is disabled: there is no text to read"] if stored.get("enabled") is False else []
    includes, excludes = stored.get("includes") or ["*"], stored.get("excludes") or []
    for kind, names in (("text", profile.text_fields), ("image", filter(None, [profile.image_field]))):
        for name in names:
            if not _is_among(name, includes) or _is_among(name, excludes):
                found.append(f"{kind} field {name} is not stored: _source leaves it out")
            if field_mapping(source.mapping, name) is None:
                found.append(f"{kind} field {name} is not in the mapping")
    if source.settings.get("verified_before_close") == "true":
        found.append("it is closed: open it")
    return found


def _text(mapping: Mapping[str, Any], name: str) -> JsonObject:
    """The field as text, searched and scored as the application's is, if that one is text."""
    field = field_mapping(mapping, name) or {}
    if field.get("type") != "text":
        return {"type": "text"}
    return {"type": "text", **{key: value for key, value in field.items() if key in _TEXT_PARAMETERS}}


def _is_among(name: str, patterns: Sequence[str]) -> bool:
    """Whether a field or an object around it is named by one of the patterns of a `_source` filter."""
    parts = name.split(".")
    names = [".".join(parts[:n]) for n in range(1, len(parts) + 1)]
    return any(fnmatchcase(each, pattern) for each in names for pattern in patterns)
