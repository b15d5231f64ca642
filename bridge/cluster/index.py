"""Creates, reads, checks and deletes indices that hold our object."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import structlog
from opensearchpy import NotFoundError, OpenSearch, RequestError

from bridge.cluster.connection import capabilities, reason_of
from bridge.cluster.dialects import VectorEngine, dialect_of
from bridge.cluster.field_security import refuse_restricted
from bridge.cluster.schema import (
    Dynamic,
    analysers,
    differences,
    in_place_obstacles,
    missing_fields,
    new_index,
    object_properties,
    read_beside,
    read_profile,
    scored_together,
    write_blocks,
)
from bridge.cluster.schema import fitted as schema_fitted
from bridge.cluster.schema import new_profile as profile_of_new_index
from bridge.errors import IndexUnsuitable
from bridge.profile import BESIDE_KEY, META_KEY, IndexProfile

log = structlog.get_logger(__name__)

_IDS_PER_SEARCH = 1_000


@dataclass(frozen=True, slots=True)
class IndexState:
    """One index as the cluster describes it.

    `name` is the index itself, even if an alias led to it; `settings` lack the outer `index` object; `profile` is None
    if the index is not enriched. `beside`: the profile of a second generation, see `bridge.cluster.generations`.
    `data_stream`: the one that the index belongs to.
    """

    name: str
    mapping: Mapping[str, Any]
    settings: Mapping[str, Any]
    profile: IndexProfile | None
    beside: IndexProfile | None = None
    data_stream: str | None = None

    @property
    def required_profile(self) -> IndexProfile:
        """The profile of an index that must be enriched.

        Raises:
            IndexUnsuitable: it is not.
        """
        if self.profile is None:
            raise IndexUnsuitable(
                f"index {self.name} is not enriched, so it has no profile: run `neural-bridge backfill {self.name}`"
            )
        return self.profile

    def generation(self, number: int) -> IndexProfile | None:
        """The profile of one of the index's generations; None if it has no such generation."""
        standing = (self.profile, self.beside)
        return next((profile for profile in standing if profile and profile.generation == number), None)


def fitted(client: OpenSearch, profile: IndexProfile) -> IndexProfile:
    """The profile as this cluster can serve it (`bridge.cluster.schema.fitted`); warns if it cannot search vectors."""
    cluster = capabilities(client)
    if not cluster.has_knn:
        log.warning(
            "the cluster cannot search vectors: documents get predicted queries, and searches are reranked, without "
            "them; weighted terms take their place if --sparse-encoder makes them; `neural-bridge doctor` says what is "
            "missing",
            cluster=str(cluster),
        )
    return schema_fitted(profile, dialect_of(cluster))


def as_kept(profile: IndexProfile, state: IndexState) -> IndexProfile:
    """The profile with its vectors, codes and terms held as the index holds those of its generation already."""
    kept = state.generation(profile.generation)
    if kept is None:
        return profile
    sparse = profile.sparse
    if sparse and kept.sparse:
        sparse = msgspec.structs.replace(sparse, terms_type=kept.sparse.terms_type)
    return msgspec.structs.replace(profile, vector_encoding=kept.vector_encoding, codes=kept.codes, sparse=sparse)


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
        IndexUnsuitable: it exists already, or the cluster refuses the mapping.
    """
    body = new_index(
        profile,
        dialect_of(capabilities(client)),
        analyzer=analyzer,
        engine=engine,
        properties=properties,
        settings=settings,
        dynamic=dynamic,
    )
    create_index(client, index, body)


def create_unless_there(client: OpenSearch, index: str, profile: IndexProfile, *, analyzer: str) -> bool:
    """Creates an index, unless another run has created it meanwhile; whether this one did.

    Raises:
        IndexUnsuitable: the cluster refuses the mapping.
    """
    try:
        create(client, index, profile, analyzer=analyzer)
    except IndexUnsuitable:
        if find(client, index) is None:
            raise
        return False
    return True


def new_profile(client: OpenSearch, profile: IndexProfile, *, properties: Mapping[str, Any]) -> IndexProfile:
    """The profile that `create` would write to an index with these fields."""
    return profile_of_new_index(profile, dialect_of(capabilities(client)), properties=properties)


def create_index(client: OpenSearch, index: str, body: Mapping[str, Any]) -> None:
    """Creates an index from a whole body.

    Raises:
        IndexUnsuitable: it exists already, or the cluster refuses the body.
    """
    try:
        client.indices.create(index=index, body=body)
    except RequestError as error:
        if error.error == "resource_already_exists_exception":
            raise IndexUnsuitable(
                f"index {index} exists already: choose another name, or delete it with "
                f"`neural-bridge index delete {index}`"
            ) from error
        raise IndexUnsuitable(f"index {index} cannot be created: {reason_of(error)}") from error


def find(client: OpenSearch, index: str) -> IndexState | None:
    """Reads mapping, settings and profile of an index, or of an alias of one index; None if it does not exist.

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
    return _read(name, state)


def find_all(client: OpenSearch, names: Sequence[str]) -> dict[str, IndexState]:
    """Reads those of several indices that exist, as `find` does; by name."""
    try:
        found = client.indices.get(index=",".join(names), params={"ignore_unavailable": "true"})
    except NotFoundError:
        return {}
    return {name: _read(name, state) for name, state in found.items()}


def _read(name: str, state: Mapping[str, Any]) -> IndexState:
    mapping = state.get("mappings", {})
    settings = state.get("settings", {}).get("index", {})
    serving, beside = read_profile(mapping, index=name), read_beside(mapping, index=name)
    return IndexState(name, mapping, settings, serving, beside, state.get("data_stream"))


def resolve(client: OpenSearch, expression: str) -> dict[str, str]:
    """The open indices that an index's name, an alias, a data stream or a pattern stands for, or several of them with
    commas between: identities by name.

    Raises:
        AccessDenied: this user may not know of them.
    """
    params = {"ignore_unavailable": "true", "filter_path": "*.settings.index.uuid"}
    found = client.indices.get(index=expression, params=params)
    return {name: _identity(name, state["settings"]["index"]["uuid"]) for name, state in found.items()}


def look(client: OpenSearch, index: str) -> IndexState:
    """`find` for an index that must exist.

    Raises:
        IndexUnsuitable: it does not exist, or as of `find`.
    """
    state = find(client, index)
    if state is None:
        raise IndexUnsuitable(
            f"index {index} does not exist, or was deleted meanwhile: make it with `neural-bridge index create {index}`"
        )
    return state


def extend(client: OpenSearch, index: str, profile: IndexProfile) -> IndexState:
    """Adds the fields of `profile`, and the profile, to the mapping of an index in use; nothing else changes.

    If another generation serves searches, this one becomes the second. Predicted queries get the analysers of the
    first text field.

    Raises:
        IndexUnsuitable: the index cannot be enriched in place, or is enriched for another profile already.
        AccessDenied: some of its documents or fields are hidden from this user.
    """
    state = check_in_place(client, index, profile)
    dialect = dialect_of(capabilities(client))
    kept = state.generation(profile.generation)
    gets_more = kept is not None and _with_more(kept, profile) != kept
    if kept is None or gets_more or missing_fields(as_kept(profile, state), state.mapping):
        analysed = analysers(state.mapping, profile)
        served = as_kept(schema_fitted(_with_more(kept, profile) if kept else profile, dialect), state)
        new = scored_together(served, dialect, state.mapping, **analysed)
        body = {
            "_meta": {**state.mapping.get("_meta", {}), _meta_key(state, profile): new.to_meta()},
            "properties": object_properties(new, dialect, **analysed),
        }
        try:
            client.indices.put_mapping(index=state.name, body=body)
        except RequestError as error:
            raise IndexUnsuitable(f"the mapping of {state.name} cannot be extended: {reason_of(error)}") from error
    return check(client, state.name, profile)


def _with_more(kept: IndexProfile, profile: IndexProfile) -> IndexProfile:
    """The profile that an index has already, with terms and with vectors of pictures if this run makes them."""
    kept = msgspec.structs.replace(kept, image=kept.image or profile.image)
    if kept.sparse is not None or profile.sparse is None:
        return kept
    # Without vectors there was nothing to fuse.
    stages = kept.stages if kept.has_vectors or kept.gate else profile.stages
    return msgspec.structs.replace(kept, sparse=profile.sparse, stages=stages)


def check_in_place(client: OpenSearch, index: str, profile: IndexProfile) -> IndexState:
    """Checks before anything is changed whether an index can be enriched in place.

    Raises:
        IndexUnsuitable: it cannot, or is enriched for another profile already; every obstacle is named.
        AccessDenied: some of its documents or fields are hidden from this user.
    """
    state = look(client, index)
    refuse_companion(state)
    refuse_restricted(client, state.name)
    _refuse_blocked(state)
    if obstacles := obstacles_in_place(client, state, profile):
        raise not_in_place(state, obstacles)
    _refuse_unlike(state, contradictions(state, profile))
    return state


def not_in_place(state: IndexState, obstacles: Sequence[str]) -> IndexUnsuitable:
    """The error for an index that cannot be enriched in place."""
    begun = f"begin anew with `neural-bridge undo {state.name}`, then" if state.profile else "leave it as it is, and"
    return IndexUnsuitable(
        f"index {state.name} cannot be enriched in place; nothing was changed:\n"
        + "\n".join(f"  - {sentence}" for sentence in obstacles)
        + f"\nMend that, or {begun} enrich it beside: `neural-bridge backfill {state.name} --beside`"
    )


def refuse_companion(state: IndexState) -> None:
    """Keeps a companion from being enriched as if an application wrote it.

    Raises:
        IndexUnsuitable: the index is one.
    """
    profile = state.profile or state.beside
    if profile is not None and (beside := profile.beside):
        raise IndexUnsuitable(f"index {state.name} is the companion of {beside}: name {beside} instead")


def obstacles_in_place(client: OpenSearch, state: IndexState, profile: IndexProfile) -> list[str]:
    """What keeps an index from being enriched in place, one sentence each."""
    return in_place_obstacles(profile, dialect_of(capabilities(client)), state.mapping, state.settings)


def contradictions(state: IndexState, profile: IndexProfile) -> list[str]:
    """How a profile differs from the one that its generation in the index was made for, one sentence each."""
    kept = state.generation(profile.generation)
    return list(_contradictions(kept, profile)) if kept else []


def identity(state: IndexState) -> str:
    """Distinguishes this index from a later one of the same name."""
    return _identity(state.name, state.settings.get("uuid"))


def _identity(name: str, uuid: str | None) -> str:
    return f"{name} ({uuid})"


def check(client: OpenSearch, index: str, profile: IndexProfile) -> IndexState:
    """Checks, before the first write, that an index can hold what `profile` makes.

    Raises:
        IndexUnsuitable: it cannot, or it has another profile; every difference is named.
        AccessDenied: some of its documents or fields are hidden from this user.
    """
    state = look(client, index)
    refuse_restricted(client, state.name)
    _refuse_blocked(state)
    kept = state.generation(profile.generation)
    found = differences(as_kept(profile, state), state.mapping, state.settings)
    if kept is not None:
        found += _contradictions(kept, profile)
    elif state.profile is not None:
        found.append(f"it has no generation {profile.generation}, or has it no longer")
    _refuse_unlike(state, found)
    return state


def refuse_data_stream(state: IndexState) -> None:
    """Makes sure that whole documents can be written to an index by its own name.

    Raises:
        IndexUnsuitable: it belongs to a data stream.
    """
    if state.data_stream is not None:
        raise IndexUnsuitable(
            f"{state.name} belongs to the data stream {state.data_stream}, which takes new documents by its own name "
            f"alone: let their application write them, then enrich them with `neural-bridge backfill {state.name}` "
            f"or `neural-bridge follow {state.name}`"
        )


def _refuse_unlike(state: IndexState, found: Sequence[str]) -> None:
    if found:
        raise IndexUnsuitable(
            f"index {state.name} cannot be written as asked; nothing was changed:\n"
            + "\n".join(f"  - {sentence}" for sentence in found)
            + "\nCreate a new index with `neural-bridge index create`, fill a second generation of vectors beside the "
            f"first with `neural-bridge generation fill {state.name}`, begin anew after `neural-bridge undo "
            f"{state.profile.beside if state.profile and state.profile.beside else state.name}`, or correct the options"
        )


def _refuse_blocked(state: IndexState) -> None:
    if blocks := list(write_blocks(state.settings)):
        raise IndexUnsuitable(
            f"index {state.name} takes no documents now ({'; '.join(blocks)}): open it, or set that back, and run it "
            f"again; nothing was changed"
        )


def keep_profile(client: OpenSearch, state: IndexState, profile: IndexProfile) -> None:
    """Writes a generation's generator and filter threshold to the mapping, or the whole profile if it has none.

    The operator's choices stay.
    """
    kept = state.generation(profile.generation)
    chosen = profile
    if kept:
        made_by = {"generator": profile.generator, "filter_threshold": profile.filter_threshold}
        chosen = msgspec.structs.replace(kept, **made_by)
    if chosen != kept:
        key = _meta_key(state, profile)
        put_meta(client, state.name, lambda meta: {**meta, key: chosen.to_meta()})


def put_profile(client: OpenSearch, index: str, change: Callable[[IndexProfile], IndexProfile]) -> IndexProfile:
    """Replaces the profile of an enriched index by `change` of it; returns the new one.

    Raises:
        IndexUnsuitable: it has none.
    """
    state = look(client, index)
    changed = change(state.required_profile)
    if changed != state.profile:
        put_meta(client, state.name, lambda meta: {**meta, META_KEY: changed.to_meta()})
    return changed


def put_meta(client: OpenSearch, index: str, change: Callable[[Mapping[str, Any]], Mapping[str, Any]]) -> None:
    """Replaces the mapping's `_meta` by `change` of it; a cluster takes it only as a whole."""
    meta = look(client, index).mapping.get("_meta", {})
    client.indices.put_mapping(index=index, body={"_meta": dict(change(meta))})


def _meta_key(state: IndexState, profile: IndexProfile) -> str:
    """The key of `_meta` for a profile: proxies must not take a second generation for the serving one."""
    if state.beside is not None and state.beside.generation == profile.generation:
        return BESIDE_KEY
    serves = state.profile is None or state.profile.generation == profile.generation
    return META_KEY if serves else BESIDE_KEY


def delete(client: OpenSearch, index: str) -> None:
    """Deletes an index and all its documents.

    Raises:
        IndexUnsuitable: there is no such index.
    """
    try:
        client.indices.delete(index=index)
    except NotFoundError as error:
        raise IndexUnsuitable(f"index {index} does not exist: nothing to delete") from error


def count(client: OpenSearch, index: str) -> int:
    """Documents that a search can see."""
    return int(client.count(index=index)["count"])


def present_ids(client: OpenSearch, index: str, doc_ids: Sequence[str]) -> set[str]:
    """Those of `doc_ids` that a search of the index can see."""
    present: set[str] = set()
    for start in range(0, len(doc_ids), _IDS_PER_SEARCH):
        ids = list(doc_ids[start : start + _IDS_PER_SEARCH])
        body = {"size": len(ids), "query": {"ids": {"values": ids}}, "_source": False}
        present.update(hit["_id"] for hit in client.search(index=index, body=body)["hits"]["hits"])
    return present


def count_stamped(client: OpenSearch, index: str, profile: IndexProfile) -> int:
    """Documents that a run has finished with, and that a search can see: also those without text."""
    query = {"query": {"exists": {"field": profile.stamp_field}}}
    return int(client.count(index=index, body=query)["count"])


def count_enriched(client: OpenSearch, index: str, profile: IndexProfile) -> int:
    """Documents with vectors or with predicted queries, and that a search can see; or those that were ever written, if
    they have terms and no vectors: clusters do not count what has terms."""
    if profile.has_terms and not profile.has_vectors:
        return count_stamped(client, index, profile)
    queries: dict[str, Any] = {"exists": {"field": profile.predicted_queries_field}}
    vectors: dict[str, Any] = {"exists": {"field": profile.embedding_field}}
    if profile.passages.layout == "nested":
        vectors = {"nested": {"path": profile.passages_field, "query": vectors, "ignore_unmapped": True}}
    made = [queries, vectors]
    if profile.image is not None:
        made.append({"exists": {"field": profile.image_embedding_field}})
    query = {"bool": {"should": made, "minimum_should_match": 1}}
    return int(client.count(index=index, body={"query": query})["count"])


def _contradictions(kept: IndexProfile, wanted: IndexProfile) -> Iterator[str]:
    """Why documents made for `wanted` cannot share a generation with those made for `kept`."""
    pairs: list[tuple[str, object, object]] = [
        ("encoder", kept.encoder.identity, wanted.encoder.identity),
        ("object field", kept.object_field, wanted.object_field),
        ("passage layout", kept.passages.layout, wanted.passages.layout),
        ("text fields", kept.text_fields, wanted.text_fields),
    ]
    if kept.sparse or kept.beside:  # in place, terms may be added to documents that have none
        first, second = (one.sparse.encoder.identity if one.sparse else "none" for one in (kept, wanted))
        pairs.append(("sparse encoder", first, second))
    if kept.image or kept.beside:  # the same of vectors of pictures
        made = [
            (one.image.field, one.image.encoder.identity) if one.image else ("none", "none") for one in (kept, wanted)
        ]
        pairs += zip(("image field", "image encoder"), *made, strict=True)
    for name, has, wants in pairs:
        if has != wants:
            yield f"its profile says {name} {has}, this run {wants}: searches would mix the two"
