"""Which of our fields a follower makes: all of them, or the vectors first and the predicted queries afterwards.

Predicting the queries of a document takes several times as long as embedding it. So a document that somebody
wrote gets its vectors at once, by a stamp that names no generator, and its queries as the machine has time. The
stamp tells how far each document is, whatever happened in between.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import msgspec

from bridge.profile import IndexProfile
from bridge.records import Document
from bridge.settings import IngestSettings
from ingest.stages.stamps import is_current, recipe, stale, stamp_within

Fields = Literal["all", "vectors", "predicted_queries"]


@dataclass(frozen=True, slots=True)
class FollowedFields:
    """What a run of a follower makes: as `profile` says, stamped with `recipe`, of the documents that `needs`
    picks out of those that were read."""

    fields: Fields
    profile: IndexProfile
    recipe: str
    needs: Callable[[Sequence[Document]], list[Document]]

    @classmethod
    def of(cls, fields: Fields, profile: IndexProfile, settings: IngestSettings) -> "FollowedFields":
        """These fields of the documents that `profile` describes."""
        whole = recipe(profile, settings)
        if fields == "all":
            return cls(fields, profile, whole, partial(stale, profile=profile, recipe=whole))
        without_queries = msgspec.structs.replace(profile, generator=None)
        vectors = recipe(without_queries, settings)
        if fields == "vectors":
            # A document whose queries fit its text has vectors that do.
            needs = partial(stale, profile=profile, recipe=whole)
            return cls(fields, without_queries, vectors, lambda documents: stale(needs(documents), profile, vectors))
        without_vectors = msgspec.structs.replace(profile, vector_type="none")
        return cls(fields, without_vectors, whole, partial(_made_by, profile=profile, recipe=vectors))


def steps(profile: IndexProfile) -> list[Fields]:
    """What is made one after the other of documents that `profile` describes."""
    both = profile.generator is not None and profile.vector_type != "none"
    return ["vectors", "predicted_queries"] if both else ["all"]


def _made_by(documents: Sequence[Document], profile: IndexProfile, recipe: str) -> list[Document]:
    """The documents whose fields are what this recipe makes of them now."""
    return [each for each in documents if is_current(stamp_within(each.body, profile.stamp_field), recipe, each)]
