"""Which way an index is enriched: in place, or beside, in a companion."""

from typing import Literal

from opensearchpy import OpenSearch

from bridge.cluster import index as indices
from bridge.cluster.field_security import refuse_restricted
from bridge.cluster.index import IndexState
from bridge.cluster.schema import write_blocks
from bridge.profile import IndexProfile
from bridge.settings import IngestSettings
from ingest.sources.versions import external_versions

Way = Literal["in_place", "beside"]


def choose(
    client: OpenSearch,
    state: IndexState,
    companion: IndexState | None,
    profile: IndexProfile,
    settings: IngestSettings,
) -> tuple[Way, list[str]]:
    """The way for an index and why, in sentences: the way that was begun, or in place if nothing speaks against it.

    Raises:
        AccessDenied: some documents or fields of the index are hidden from this user.
    """
    may_write = refuse_restricted(client, state.name)
    if state.profile is not None:
        return "in_place", ["it is enriched in place already"]
    if companion is not None:
        return "beside", [f"its companion is there already, {companion.name}"]
    against = indices.obstacles_in_place(client, state, profile)
    against += (blocks := list(write_blocks(state.settings)))
    if not may_write and not blocks:
        against.append("this user may not write to it")
    if state.mapping.get("dynamic") == "strict":
        against.append("its mapping is strict: it is meant to have no other fields")
    if (numbered := external_versions(client, state, settings)) is not None:
        against.append(numbered)
    return ("beside", against) if against else ("in_place", ["nothing speaks against it"])
