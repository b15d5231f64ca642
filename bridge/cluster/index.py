"""Indices that hold our object: create, look, check, delete."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
from opensearchpy import NotFoundError, OpenSearch, RequestError

from bridge.cluster.connection import capabilities
from bridge.cluster.dialects import VectorEngine, dialect_of
from bridge.cluster.schema import (
    Dynamic,
    differences,
    field_mapping,
    in_place_obstacles,
    incomplete_source,
    missing_fields,
    new_index,
    new_index_like,
    object_properties,
    read_profile,
)
from bridge.errors import ClusterBlocked, IndexUnsuitable
from bridge.profile import META_KEY, IndexProfile

_UNDO_DOCUMENTS = 5000
"""Few enough that one request ends within the client's time-out."""

_IDLE_ROUNDS = 5


@dataclass(frozen=True, slots=True)
class IndexState:
    """One index as the cluster holds it. `name` is the index itself, also where an alias was asked for;
    `settings` without the outer `index` object; `profile` None where the bridge has not been."""

    name: str
    mapping: Mapping[str, Any]
    settings: Mapping[str, Any]
    profile: IndexProfile | None


def create(
    client: OpenSearch,
    index: str,
    profile: IndexProfile,
    *,
    analyzer: str = "english",
    engine: VectorEngine = "lucene",
    properties: Mapping[str, Any] | None = None,
    settings: Mapping[str, Any] | None = None,
    dynamic: Dynamic = "true",
) -> None:
    """Creates an index for `profile`; see `bridge.cluster.schema.new_index`.

    Raises:
        IndexUnsuitable: it exists already, the cluster has no k-NN, or refuses the mapping.
    """
    cluster = capabilities(client)
    if not cluster.has_knn:
        raise IndexUnsuitable(
            f"{cluster} cannot search vectors: install the opensearch-knn plugin on its nodes, or use "
            f"Elasticsearch 8 or later"
        )
    body = new_index(
        profile,
        dialect_of(cluster),
        analyzer=analyzer,
        engine=engine,
        properties=properties,
        settings=settings,
        dynamic=dynamic,
    )
    _create(client, index, body)


def _create(client: OpenSearch, index: str, body: Mapping[str, Any]) -> None:
    try:
        client.indices.create(index=index, body=body)
    except RequestError as error:
        if error.error == "resource_already_exists_exception":
            raise IndexUnsuitable(
                f"index {index} exists already: choose another name, or delete it with "
                f"`neural-bridge index delete {index}`"
            ) from error
        raise IndexUnsuitable(f"index {index} cannot be created: {reason_of(error)}") from error


def create_like(client: OpenSearch, old: str, new: str, profile: IndexProfile) -> None:
    """Creates an index as another one is, with our object beside its fields.

    Raises:
        IndexUnsuitable: the old index does not keep its documents whole, or the cluster refuses the mapping.
    """
    state = look(client, old)
    if lost := incomplete_source(state.mapping):
        raise IndexUnsuitable(
            f"index {state.name} cannot be copied, it does not keep its documents whole ({'; '.join(lost)}): ingest "
            f"them from where the application has them"
        )
    body = new_index_like(state.mapping, state.settings, profile, dialect_of(capabilities(client)))
    _create(client, new, body)


def move_alias(client: OpenSearch, alias: str, *, old: str, new: str) -> None:
    """Lets an alias name the new index in place of the old one, in one step that searches cannot fall into.

    Raises:
        IndexUnsuitable: the alias does not name the old index.
    """
    remove, add = {"index": old, "alias": alias, "must_exist": True}, {"index": new, "alias": alias}
    try:
        client.indices.update_aliases(body={"actions": [{"remove": remove}, {"add": add}]})
    except NotFoundError as error:
        raise IndexUnsuitable(f"{alias} is no alias of {old}: nothing was moved") from error


def find(client: OpenSearch, index: str) -> IndexState | None:
    """Reads mapping, settings and profile of an index, or of an alias of one index; None where there is none.

    Raises:
        IndexUnsuitable: the name stands for several indices, or the profile cannot be read.
    """
    try:
        found = client.indices.get(index=index)
    except NotFoundError:
        return None
    if len(found) != 1:
        raise IndexUnsuitable(f"{index} names {len(found)} indices ({', '.join(sorted(found))}): name one of them")
    ((name, state),) = found.items()
    mapping = state.get("mappings", {})
    settings = state.get("settings", {}).get("index", {})
    return IndexState(name, mapping, settings, read_profile(mapping, index=name))


def look(client: OpenSearch, index: str) -> IndexState:
    """The same of an index that must exist.

    Raises:
        IndexUnsuitable: it does not, or as `find` says.
    """
    state = find(client, index)
    if state is None:
        raise IndexUnsuitable(f"index {index} does not exist: make it with `neural-bridge index create {index}`")
    return state


def extend(client: OpenSearch, index: str, profile: IndexProfile) -> IndexState:
    """Adds our object and the profile to the mapping of an index that is in use; nothing else changes.

    The predicted queries are analysed as the first text field is.

    Raises:
        IndexUnsuitable: the index cannot be enriched in place, or is enriched for another profile already.
    """
    state = look(client, index)
    dialect = dialect_of(capabilities(client))
    obstacles = in_place_obstacles(profile, dialect, state.mapping, state.settings)
    if obstacles:
        raise IndexUnsuitable(
            f"index {state.name} cannot be enriched in place; nothing was changed:\n"
            + "\n".join(f"  - {sentence}" for sentence in obstacles)
            + f"\nCopy it instead: `neural-bridge copy {state.name} NEW_INDEX`"
        )
    if missing_fields(profile, state.mapping) or state.profile is None:
        first = field_mapping(state.mapping, profile.text_fields[0].name) or {}
        body = {
            "_meta": {**state.mapping.get("_meta", {}), META_KEY: profile.to_meta()},
            "properties": object_properties(profile, dialect, analyzer=first.get("analyzer")),
        }
        try:
            client.indices.put_mapping(index=state.name, body=body)
        except RequestError as error:
            raise IndexUnsuitable(f"the mapping of {state.name} cannot be extended: {reason_of(error)}") from error
    return check(client, state.name, profile)


def identity(state: IndexState) -> str:
    """Tells this index from a later one of the same name."""
    return f"{state.name} ({state.settings.get('uuid')})"


def check(client: OpenSearch, index: str, profile: IndexProfile) -> IndexState:
    """Looks before the first write whether an index can hold what `profile` makes.

    Raises:
        IndexUnsuitable: it cannot, or it is kept for another profile; every difference is named.
    """
    state = look(client, index)
    found = differences(profile, state.mapping, state.settings)
    if state.profile is not None:
        found += [
            f"its profile says {name} {kept}, this run {asked}: searches would mix the two"
            for name, kept, asked in _contradictions(state.profile, profile)
        ]
    if found:
        raise IndexUnsuitable(
            f"index {state.name} cannot be written as asked; nothing was changed:\n"
            + "\n".join(f"  - {sentence}" for sentence in found)
            + "\nCreate a new index with `neural-bridge index create`, or correct the options"
        )
    return state


def keep_profile(client: OpenSearch, state: IndexState, profile: IndexProfile) -> None:
    """Notes in the mapping which generator predicts queries from now on, and the whole profile where there
    was none. What an operator chose stays."""
    chosen = msgspec.structs.replace(state.profile, generator=profile.generator) if state.profile else profile
    if chosen != state.profile:
        meta = {**look(client, state.name).mapping.get("_meta", {}), META_KEY: chosen.to_meta()}
        client.indices.put_mapping(index=state.name, body={"_meta": meta})


def delete(client: OpenSearch, index: str) -> None:
    """Deletes an index and all its documents.

    Raises:
        IndexUnsuitable: there is no such index.
    """
    try:
        client.indices.delete(index=index)
    except NotFoundError as error:
        raise IndexUnsuitable(f"index {index} does not exist: nothing to delete") from error


@dataclass(frozen=True, slots=True)
class Undone:
    """What `undo` did: documents that held our object, and the fields that stay in the mapping, where no
    cluster can remove a field."""

    documents: int
    mapped_fields: list[str]


def undo(client: OpenSearch, index: str, *, on_progress: Callable[[int, int], None] | None = None) -> Undone:
    """Takes our object out of every document and the profile out of the mapping, and counts that it is so.

    Documents that the application changes meanwhile are taken again. `on_progress` gets how many are done
    and how many there were.

    Raises:
        IndexUnsuitable: the bridge has not been here.
        ClusterBlocked: documents could not be written, or came back as fast as they were cleaned.
    """
    state = look(client, index)
    if state.profile is None:
        raise IndexUnsuitable(f"index {state.name} holds nothing of the bridge: nothing to undo")
    client.indices.refresh(index=state.name)
    total = left = count_enriched(client, state.name, state.profile)
    idle_rounds = 0
    while left:
        _remove_objects(client, state.name, state.profile)
        before, left = left, count_enriched(client, state.name, state.profile)
        idle_rounds = 0 if left < before else idle_rounds + 1
        if idle_rounds == _IDLE_ROUNDS:
            raise ClusterBlocked(
                f"{left:,} documents of {state.name} still hold our object after {_IDLE_ROUNDS} attempts: stop "
                f"whatever enriches it, and run it again"
            )
        if on_progress is not None:
            on_progress(total - left, total)
    meta = {key: value for key, value in state.mapping.get("_meta", {}).items() if key != META_KEY}
    client.indices.put_mapping(index=state.name, body={"_meta": meta})
    ours = [state.profile.predicted_queries_field, state.profile.embedding_field, state.profile.stamp_field]
    return Undone(total, [name for name in ours if field_mapping(state.mapping, name) is not None])


def _remove_objects(client: OpenSearch, index: str, profile: IndexProfile) -> None:
    answer = client.update_by_query(
        index=index,
        body={
            "query": {"exists": {"field": profile.stamp_field}},
            "script": {"source": "ctx._source.remove(params.field)", "params": {"field": profile.object_field}},
        },
        params={"conflicts": "proceed", "refresh": "true", "max_docs": _UNDO_DOCUMENTS},
    )
    if failures := answer.get("failures"):
        cause = failures[0].get("cause", {})
        raise ClusterBlocked(
            f"{len(failures)} documents of {index} could not be written ({cause.get('type')}: {cause.get('reason')}): "
            f"see to that, and run it again"
        )


def count(client: OpenSearch, index: str) -> int:
    """Documents that a search can see."""
    return int(client.count(index=index)["count"])


def count_enriched(client: OpenSearch, index: str, profile: IndexProfile) -> int:
    """Documents that carry a stamp of ours, and that a search can see."""
    query = {"query": {"exists": {"field": profile.stamp_field}}}
    return int(client.count(index=index, body=query)["count"])


def reason_of(error: RequestError) -> str:
    """The reason that the cluster gave, innermost first."""
    match error.info:
        case {"error": {"root_cause": [{"reason": str(reason)}, *_]}} | {"error": {"reason": str(reason)}}:
            return reason
    return str(error.error)


def _contradictions(kept: IndexProfile, asked: IndexProfile) -> list[tuple[str, object, object]]:
    """What two profiles must share for their documents to stand in one index."""
    pairs: list[tuple[str, object, object]] = [
        ("encoder", kept.encoder.identity, asked.encoder.identity),
        ("object field", kept.object_field, asked.object_field),
        ("passage layout", kept.passages.layout, asked.passages.layout),
        ("text fields", [f.name for f in kept.text_fields], [f.name for f in asked.text_fields]),
    ]
    return [(name, a, b) for name, a, b in pairs if a != b]
