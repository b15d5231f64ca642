"""Takes our fields out of an index's documents again: all of them, or those of one generation.

A mapping cannot lose a field: `Removed` lists those that stay, empty.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from opensearchpy import OpenSearch

from bridge.cluster.index import IndexState, look, put_meta, refuse_companion
from bridge.cluster.schema import field_mapping, our_fields, without_ours
from bridge.errors import ClusterBlocked, IndexUnsuitable
from bridge.profile import BESIDE_KEY

OnProgress = Callable[[int, int], None]
"""Called with how many documents are done, and how many there were."""

_DOCUMENTS = 5000
"""Few enough that one request ends within the client's time-out."""

_IDLE_ROUNDS = 5

_REMOVE = """
Map ours = ctx._source[params.object];
for (String name : params.names) { ours.remove(name); }
if (ours.isEmpty()) { ctx._source.remove(params.object); }
"""


@dataclass(frozen=True, slots=True)
class Removed:
    """`documents` held our fields, and none does now; `mapped_fields` stay in the mapping, empty."""

    documents: int
    mapped_fields: list[str]


def undo(client: OpenSearch, index: str, *, on_progress: OnProgress | None = None) -> Removed:
    """Removes our object, with all its generations, from every document, and the profiles from the mapping.

    Repeats for documents that the application changes meanwhile, and counts at the end that none holds our fields.

    Raises:
        IndexUnsuitable: the bridge has not been here.
        ClusterBlocked: documents could not be written, or came back as fast as they were cleaned.
    """
    state = look(client, index)
    if state.profile is None:
        raise IndexUnsuitable(f"index {state.name} holds nothing of the bridge: nothing to undo")
    refuse_companion(state)
    object_field = state.profile.object_field
    ours = our_fields(state.mapping, object_field)
    inner = field_mapping(state.mapping, object_field) or {}
    removed = _remove(client, state, ours, object_field, list(inner.get("properties", {})), on_progress)
    put_meta(client, state.name, without_ours)
    return removed


def drop(client: OpenSearch, index: str, generation: int, *, on_progress: OnProgress | None = None) -> Removed:
    """Removes the generation that serves no searches from every document, then from `_meta`.

    Raises:
        IndexUnsuitable: the generation of this number serves searches, or is gone.
        ClusterBlocked: as of `undo`.
    """
    state = look(client, index)
    gone = state.beside
    if gone is None or gone.generation != generation:
        raise IndexUnsuitable(
            f"index {state.name} has no generation {generation} beside the serving one: nothing to drop"
        )
    every = our_fields(state.mapping, gone.object_field)
    if gone.generation == 1:
        later = f"{gone.object_field}.generation_"
        ours = [name for name in every if not name.startswith(later)]
    else:
        ours = [name for name in every if name.startswith(f"{gone.generation_field}.")]
    names = sorted({name.removeprefix(f"{gone.object_field}.").split(".")[0] for name in ours})
    removed = _remove(client, state, ours, gone.object_field, names, on_progress)
    put_meta(client, state.name, lambda meta: {key: value for key, value in meta.items() if key != BESIDE_KEY})
    return removed


def _remove(
    client: OpenSearch,
    state: IndexState,
    fields: Sequence[str],
    object_field: str,
    names: Sequence[str],
    on_progress: OnProgress | None,
) -> Removed:
    """Removes the members `names` of our object until no document has any of `fields` (full names)."""
    # Clusters do not say whether a document has `rank_features`; every one that has them has a stamp.
    countable = [name for name in fields if (field_mapping(state.mapping, name) or {}).get("type") != "rank_features"]
    holding = {"query": {"bool": {"should": [_exists(state.mapping, field) for field in countable]}}}
    client.indices.refresh(index=state.name)
    total = left = int(client.count(index=state.name, body=holding)["count"])
    idle_rounds = 0
    while left:
        _update(client, state.name, {**holding, "script": _script(object_field, names)})
        before, left = left, int(client.count(index=state.name, body=holding)["count"])
        idle_rounds = 0 if left < before else idle_rounds + 1
        if idle_rounds == _IDLE_ROUNDS:
            raise ClusterBlocked(
                f"{left:,} documents of {state.name} still hold our fields after {_IDLE_ROUNDS} attempts: stop "
                f"the run that enriches it, and repeat the command"
            )
        if on_progress is not None:
            on_progress(total - left, total)
    return Removed(total, list(fields))


def _update(client: OpenSearch, index: str, body: Mapping[str, Any]) -> None:
    answer = client.update_by_query(
        index=index, body=body, params={"conflicts": "proceed", "refresh": "true", "max_docs": _DOCUMENTS}
    )
    if failures := answer.get("failures"):
        cause = failures[0].get("cause", {})
        raise ClusterBlocked(
            f"{len(failures)} documents of {index} could not be written ({cause.get('type')}: {cause.get('reason')}): "
            f"see to that, and run it again"
        )


def _script(object_field: str, names: Sequence[str]) -> dict[str, Any]:
    return {"lang": "painless", "source": _REMOVE, "params": {"object": object_field, "names": list(names)}}


def _exists(mapping: Mapping[str, Any], field: str) -> dict[str, Any]:
    """The query for documents that hold a field, also inside nested objects."""
    query: dict[str, Any] = {"exists": {"field": field}}
    parts = field.split(".")
    for depth in range(len(parts) - 1, 0, -1):
        path = ".".join(parts[:depth])
        if (field_mapping(mapping, path) or {}).get("type") == "nested":
            query = {"nested": {"path": path, "query": query}}
    return query
