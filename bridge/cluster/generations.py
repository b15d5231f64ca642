"""A change of models: a second generation of our fields beside the first, and which of the two serves searches.

Each generation has its own fields, made by one encoder, so no search can mix the vectors of two. `_meta` holds the
serving generation's profile under the key that proxies read, the other's under a second key; one mapping update
changes both.

An index that is enriched beside has a companion for each: `bridge.cluster.companion.find_both`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import msgspec
from opensearchpy import OpenSearch

from bridge.cluster import companion
from bridge.cluster.index import IndexState, look, put_meta, refuse_companion
from bridge.cluster.removal import drop as drop_in_place
from bridge.cluster.schema import field_mapping
from bridge.errors import IndexUnsuitable
from bridge.profile import BESIDE_KEY, IMAGE_WEIGHT, META_KEY, STATIC_FUSION, FusionSettings, IndexProfile

_NAME = re.compile(r"generation_(\d+)")


@dataclass(frozen=True, slots=True)
class Generations:
    """The generations of an index, whichever way it is enriched.

    - `index`: the application's index.
    - `state`: of what serves searches, the index or its companion; `state.beside` is the other generation's profile,
      wherever that is.
    - `other`: the name of the index that holds the other generation; the same one in place.
    """

    index: str
    state: IndexState
    other: str

    @classmethod
    def of(cls, client: OpenSearch, index: str, prefix: str) -> "Generations":
        """The generations of an index; `state` is its own, without a profile, if it is not enriched.

        Raises:
            IndexUnsuitable: see `companion.enriched`.
        """
        source = look(client, index)
        refuse_companion(source)
        serving, other = companion.find_both(client, source.name, prefix) if source.profile is None else (None, None)
        if serving is None:
            return cls(source.name, source, source.name)
        state = companion.enriched(client, source.name, prefix)
        return cls(source.name, replace(state, beside=other.profile if other else None), (other or serving).name)

    def holder(self, profile: IndexProfile) -> str:
        """The name of the index that holds the fields of one of the generations."""
        return self.state.name if profile == self.state.profile else self.other

    def serve(self, client: OpenSearch, prefix: str, profile: IndexProfile) -> None:
        """Lets one of the generations serve searches, in one mapping update; nothing changes if it does already.

        Raises:
            IndexUnsuitable: it is gone.
        """
        if self.state.name == self.index:
            serve(client, self.index, profile.generation)
        else:
            companion.serve(client, self.index, prefix, profile.generation)

    def drop(self, client: OpenSearch, prefix: str, profile: IndexProfile) -> tuple[int, list[str]]:
        """Removes the generation of `profile`: the number of its documents, and the fields that stay in the mapping,
        empty.

        Raises:
            IndexUnsuitable: it serves searches, or is gone.
            ClusterBlocked: as of `bridge.cluster.removal.undo`.
        """
        if self.state.name == self.index:
            removed = drop_in_place(client, self.index, profile.generation)
            return removed.documents, removed.mapped_fields
        return companion.remove(client, self.index, prefix, generation=profile.generation) or 0, []


def next_generation(state: IndexState, made_by: IndexProfile) -> IndexProfile:
    """The profile of a second generation with the models, text fields and passages of `made_by`: the one that exists
    already, or one with a new number.

    It copies the operator's choices for searches, but not the evidence, which was measured with other models, and not
    how vectors are fused with words if that is a default: it goes with the encoder.

    Raises:
        IndexUnsuitable: nothing serves searches yet, the serving generation has these models already, or a second
            generation of other models exists.
    """
    serving, beside = state.profile, state.beside
    name = _name(state)
    if serving is None:
        raise IndexUnsuitable(
            f"index {state.name} holds nothing of the bridge yet: begin with `neural-bridge backfill {state.name}`"
        )
    if _alike(serving, made_by):
        raise IndexUnsuitable(
            f"generation {serving.generation} of {name}, which serves searches, is made by {_models(serving)} "
            f"already: name the models to change to with --encoder, --generator, "
            f"--sparse-encoder and --image-encoder"
        )
    if beside is not None:
        if _alike(beside, made_by):
            return beside
        raise IndexUnsuitable(
            f"beside the serving generation of {name} stands generation {beside.generation}, made by "
            f"{_models(beside)}, and there is room for one: go on with these models, or make room with "
            f"`neural-bridge generation drop {name}`"
        )
    return msgspec.structs.replace(
        serving,
        text_fields=made_by.text_fields,
        encoder=made_by.encoder,
        dimension=made_by.dimension,
        generator=made_by.generator,
        passages=made_by.passages,
        sparse=made_by.sparse,
        image=made_by.image,
        fusion=made_by.fusion if _is_default(serving.fusion) else serving.fusion,
        rules=msgspec.structs.replace(serving.rules, scripts=made_by.rules.scripts),
        expanded_fields=serving.expanded_fields if serving.text_fields == made_by.text_fields else [],
        gate=None,
        tuning=None,
        generation=_highest(state) + 1,
    )


def serve(client: OpenSearch, index: str, generation: int) -> None:
    """Lets a generation in the index itself serve searches, in one mapping update; nothing changes if it does already.

    Raises:
        IndexUnsuitable: the index has no such generation.
    """

    def serving(meta: Mapping[str, Any]) -> Mapping[str, Any]:
        now, beside = (meta[key].get("generation", 1) if key in meta else None for key in (META_KEY, BESIDE_KEY))
        if now == generation:
            return meta
        if beside == generation:
            return {**meta, META_KEY: meta[BESIDE_KEY], BESIDE_KEY: meta[META_KEY]}
        raise IndexUnsuitable(f"index {index} has no generation {generation}: nothing to change to")

    put_meta(client, index, serving)


def other(state: IndexState) -> IndexProfile:
    """The profile of the generation beside the serving one.

    Raises:
        IndexUnsuitable: there is none.
    """
    if state.beside is None:
        raise IndexUnsuitable(
            f"index {_name(state)} has no generation beside the serving one: fill one with `neural-bridge generation "
            f"fill {_name(state)}`"
        )
    return state.beside


def newer(state: IndexState) -> IndexProfile:
    """The profile of the generation to cut over to.

    Raises:
        IndexUnsuitable: none stands beside the serving one, or it is an older one.
    """
    beside = other(state)
    if state.profile is not None and beside.generation < state.profile.generation:
        raise IndexUnsuitable(
            f"generation {state.profile.generation} of {_name(state)} serves searches already, generation "
            f"{beside.generation} is the older one: go back to it with `neural-bridge generation rollback "
            f"{_name(state)}`"
        )
    return beside


def older(state: IndexState) -> IndexProfile:
    """The profile of the generation to roll back to.

    Raises:
        IndexUnsuitable: none stands beside the serving one, or it is a newer one.
    """
    beside = other(state)
    if state.profile is not None and beside.generation > state.profile.generation:
        raise IndexUnsuitable(
            f"generation {state.profile.generation} of {_name(state)} serves searches, generation {beside.generation} "
            f"is a newer one: there is nothing to roll back"
        )
    return beside


def _alike(one: IndexProfile, other: IndexProfile) -> bool:
    """Whether two profiles give documents the same vectors, terms and predicted queries."""
    first, second = (
        (p.encoder, p.generator, p.sparse and p.sparse.encoder, p.image, p.passages, p.text_fields)
        for p in (one, other)
    )
    return first == second


def _is_default(fusion: FusionSettings) -> bool:
    """Whether nobody chose how texts and their vectors are fused."""
    weights = {leg: weight for leg, weight in fusion.weights.items() if (leg, weight) != ("image", IMAGE_WEIGHT)}
    return msgspec.structs.replace(fusion, weights=weights) in (FusionSettings(), STATIC_FUSION)


def _name(state: IndexState) -> str:
    """The application's index, which is another one than that of a companion."""
    return (state.profile and state.profile.beside) or state.name


def _models(profile: IndexProfile) -> str:
    others = (profile.sparse and profile.sparse.encoder, profile.image and profile.image.encoder)
    models = (profile.encoder, profile.generator, *others)
    return " and ".join(model.identity for model in models if model)


def _highest(state: IndexState) -> int:
    """The highest number ever used in this index: the mapping keeps the fields of a dropped generation, whose dimension
    may be another one."""
    object_field = state.profile.object_field if state.profile else ""
    inner = (field_mapping(state.mapping, object_field) or {}).get("properties", {})
    standing = [profile.generation for profile in (state.profile, state.beside) if profile]
    return max([1, *standing, *(int(match[1]) for name in inner if (match := _NAME.fullmatch(name)))])
