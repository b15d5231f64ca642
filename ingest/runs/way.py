"""Which way an index is enriched, and why: in place, in its own documents, or beside it, in its companion.

What an application owns stays as it is: an index that it made, and that cannot or should not be written by anybody
else, is enriched beside.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from opensearchpy import OpenSearch

from bridge.cluster import companion
from bridge.cluster import index as indices
from bridge.cluster.connection import capabilities
from bridge.cluster.dialects import dialect_of
from bridge.cluster.field_security import refuse_restricted, write_denials
from bridge.cluster.index import IndexState
from bridge.cluster.schema import DISK_BLOCK, fitted, pipeline_risks, write_blocks
from bridge.errors import UsageError
from bridge.profile import IndexProfile, companion_of
from bridge.settings import IngestSettings
from ingest.sources.versions import external_versions

Wanted = Literal["in_place", "beside"]


@dataclass(frozen=True, slots=True)
class Way:
    """How `index` is enriched: in the companion whose name begins with `prefix`, or in place if that is None. `reasons`
    say why, one sentence each, and `otherwise` says how to decide otherwise. `generation` is that of the companion."""

    index: str
    prefix: str | None
    reasons: Sequence[str] = ()
    otherwise: str = ""
    generation: int = 1

    @property
    def companion(self) -> str | None:
        """The index that is written, if the application's is only read."""
        return None if self.prefix is None else companion_of(self.index, self.prefix, self.generation)

    @property
    def where(self) -> str:
        """In place, or beside and in which index."""
        return f"beside, in {self.companion}" if self.companion else "in place"

    @property
    def why(self) -> str:
        """The reasons, and how to decide otherwise."""
        return f"because {'; '.join(self.reasons)} ({self.otherwise})"

    def __str__(self) -> str:
        return f"{self.index}: enriched {self.where}, {self.why}"


def begun(client: OpenSearch, state: IndexState, prefix: str) -> IndexProfile | None:
    """The profile that an index is enriched for already, in place or beside; None if it is not enriched.

    Raises:
        IndexUnsuitable: the index is a companion itself; or see `bridge.cluster.companion.find`.
    """
    indices.refuse_companion(state)
    if state.profile is not None:
        return state.profile
    ours = companion.find(client, state.name, prefix)
    return ours.profile if ours else None


def choose(
    client: OpenSearch,
    state: IndexState,
    profile: IndexProfile,
    settings: IngestSettings,
    *,
    kept: IndexProfile | None,
    wanted: Wanted | None,
    prefix: str,
) -> Way:
    """The way that was begun (`kept`: see `begun`) goes on. Else it is the one that is `wanted`, or beside if anything
    speaks against in place.

    Raises:
        UsageError: it is enriched beside, and in place is wanted.
        IndexUnsuitable: it is enriched in place, or that is wanted, and cannot be; every obstacle is named.
        AccessDenied: some documents or fields of the index are hidden from this user.
    """
    refuse_restricted(client, state.name)
    name = state.name
    anew = f"`neural-bridge undo {name}` lets you begin anew"
    if kept is not None and kept.beside is not None:
        if wanted == "in_place":
            raise UsageError(
                f"index {name} is enriched beside already: leave out --in-place, or begin anew after `neural-bridge "
                f"undo {name}`"
            )
        return Way(name, prefix, ["that was begun"], anew, kept.generation)
    if wanted == "beside":
        return Way(name, prefix, ["--beside says so"], "without it the index itself decides")
    obstacles = obstacles_in_place(client, state, profile, settings)
    if kept is None and wanted is None and (reasons := _reasons_beside(client, state, obstacles)):
        return Way(name, prefix, reasons, "--in-place decides otherwise")
    if obstacles and not indices.contradictions(state, profile):
        raise indices.not_in_place(state, obstacles)
    if kept is not None:
        return Way(name, None, ["that was begun"], anew)
    if wanted is not None:
        return Way(name, None, ["--in-place says so"], "without it the index itself decides")
    return Way(name, None, ["nothing speaks against it"], "--beside decides otherwise")


def obstacles_in_place(
    client: OpenSearch, state: IndexState, profile: IndexProfile, settings: IngestSettings
) -> list[str]:
    """What keeps an index from being enriched in place, one sentence each."""
    served = indices.as_kept(fitted(profile, dialect_of(capabilities(client))), state)
    obstacles = indices.obstacles_in_place(client, state, served)
    obstacles += [f"{block}: set that back first" for block in write_blocks(state.settings)]
    if (numbered := external_versions(client, state, settings)) is not None:
        obstacles.append(numbered)
    return obstacles


def _reasons_beside(client: OpenSearch, state: IndexState, obstacles: list[str]) -> list[str]:
    """Why an index that an application made is better left as it is: in place cannot be, or would be felt."""
    # A full disk takes no companion either, and does not last.
    reasons = [obstacle for obstacle in obstacles if DISK_BLOCK not in obstacle]
    if str(state.mapping.get("dynamic")).startswith("strict"):
        # Such an index refuses documents that come with our object from elsewhere; `false` takes them.
        reasons.append("its mapping is strict: its application allows no other fields")
    return [*reasons, *pipeline_risks(state.settings), *write_denials(client, state.name)]
