"""Which generation of an index a follower keeps up, whether these models made it, and whether it is there still."""

from opensearchpy import OpenSearch

from bridge.cluster import index as indices
from bridge.cluster.index import IndexState
from bridge.cluster.shard_progress import IndexProgress
from bridge.errors import IndexUnsuitable
from bridge.profile import IndexProfile, ModelReference
from ingest.stages.models import Models, profile_like


def followed_generation(state: IndexState, generation: int | None, models: Models) -> IndexProfile:
    """The profile of the generation to follow, as these models make it; None is the serving one.

    Raises:
        IndexUnsuitable: the index has no such generation, or another generator predicted its queries: then
            every document would be made anew, which is a backfill and not what a follower is started for.
    """
    kept = state.profile if generation is None else state.generation(generation)
    if kept is None:
        which = "" if generation is None else f" of generation {generation}"
        raise IndexUnsuitable(
            f"index {state.name} has no fields{which} to follow: begin with `neural-bridge backfill {state.name}`, or "
            f"see `neural-bridge generation status {state.name}`"
        )
    profile = profile_like(kept, models)
    if kept.generator != profile.generator:
        raise IndexUnsuitable(
            f"generation {kept.generation} of {state.name} has queries predicted by {_name(kept.generator)}, and this "
            f"run's generator, {_name(profile.generator)}, would make every document anew: name the other one with "
            f"--generator, or run `neural-bridge backfill {state.name}` once if that is meant"
        )
    return profile


def still_standing(client: OpenSearch, index: str, generation: int) -> None:
    """A generation that was dropped must not come back.

    Raises:
        IndexUnsuitable: it was.
    """
    if indices.look(client, index).generation(generation) is None:
        raise IndexUnsuitable(
            f"generation {generation} of {index} was dropped or undone: there is nothing to follow any more"
        )


def still_the_same(progress: IndexProgress, *, name: str, uuid: str, asked: str) -> None:
    """Whoever followed `name` must not go on with another index that answers to `asked` now.

    Raises:
        IndexUnsuitable: it does.
    """
    if (progress.name, progress.uuid) != (name, uuid):
        raise IndexUnsuitable(
            f"{asked} was index {name} ({uuid}) and is {progress.name} ({progress.uuid}) now: start the follower again"
        )


def _name(model: ModelReference | None) -> str:
    return model.identity if model else "none"
