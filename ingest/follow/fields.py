"""Which of our fields a follower makes: all of them, or vectors and terms first and the predicted queries afterwards.

Predicting the queries of a document takes several times as long as embedding it. So a new document gets its vectors at
once, with a stamp that names no generator, and its queries when the machine has time. The stamp shows how far each
document is, whatever happened in between.

A companion's documents are written whole, so there the second step makes the vectors once more.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec

from bridge.cluster.index import IndexState
from bridge.errors import IndexUnsuitable
from bridge.profile import IndexProfile, ModelReference
from bridge.records import Document
from bridge.settings import IngestSettings
from ingest.stages.models import Models, profile_like
from ingest.stages.stamps import is_current, recipe

Fields = Literal["all", "vectors", "predicted_queries"]


@dataclass(frozen=True, slots=True)
class FollowedFields:
    """What one follower makes: fields as `profile` says, stamped with `recipe`. Documents need them if what there is
    was made by one of the recipes `made_by` (`after`), or by none of them (not `after`)."""

    fields: Fields
    profile: IndexProfile
    recipe: str
    made_by: Sequence[str]
    after: bool = False

    @classmethod
    def of(cls, fields: Fields, profile: IndexProfile, settings: IngestSettings) -> "FollowedFields":
        """These fields of an index with this profile."""
        whole = recipe(profile, settings)
        if fields == "all":
            return cls(fields, profile, whole, [whole])
        without_queries = msgspec.structs.replace(profile, generator=None)
        vectors = recipe(without_queries, settings)
        if fields == "vectors":
            # A document whose queries fit its text has vectors that do.
            return cls(fields, without_queries, vectors, [whole, vectors])
        added = (
            profile if profile.beside else msgspec.structs.replace(profile, vector_type="none", sparse=None, image=None)
        )
        return cls(fields, added, whole, [vectors], after=True)

    def needed(self, documents: Sequence[Document], stamps: Sequence[str | None]) -> list[Document]:
        """The documents that need these fields, by the stamp of each; input order."""
        stamped = zip(documents, stamps, strict=True)
        return [each for each, stamp in stamped if self._is_made(each, stamp) == self.after]

    def _is_made(self, document: Document, stamp: str | None) -> bool:
        return any(is_current(stamp, recipe, document) for recipe in self.made_by)


def steps(profile: IndexProfile) -> list[Fields]:
    """The fields of an index with this profile, in the order in which followers make them."""
    both = profile.generator is not None and (profile.has_vectors or profile.has_terms)
    return ["vectors", "predicted_queries"] if both else ["all"]


def followed_profile(state: IndexState, generation: int | None, models: Models) -> IndexProfile:
    """The profile of the generation to follow, made by these models; None is the serving one.

    Raises:
        IndexUnsuitable: the index has no such generation, or another generator predicted its queries: then every
            document would be made anew, which is the job of a backfill.
    """
    existing = state.profile if generation is None else state.generation(generation)
    if existing is None:
        which = "" if generation is None else f" of generation {generation}"
        raise IndexUnsuitable(
            f"index {state.name} has no fields{which} to follow: begin with `neural-bridge backfill {state.name}`, or "
            f"see `neural-bridge generation status {state.name}`"
        )
    name = existing.beside or state.name
    profile = profile_like(existing, models)
    if existing.generator != profile.generator:
        raise IndexUnsuitable(
            f"generation {existing.generation} of {name} has queries predicted by {_name(existing.generator)}, "
            f"and this run's generator, {_name(profile.generator)}, would make every document anew: name the other one "
            f"with --generator, or run `neural-bridge backfill {name}` once if that is meant"
        )
    return profile


def _name(model: ModelReference | None) -> str:
    return model.identity if model else "none"
