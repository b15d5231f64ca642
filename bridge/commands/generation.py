"""`neural-bridge generation`: another encoder for an index in use, and the way back."""

import json
from typing import TYPE_CHECKING

import click
import msgspec

from bridge.commands import generation_fill, settings_of
from bridge.commands.index import cluster_option, json_option

if TYPE_CHECKING:
    from opensearchpy import OpenSearch

    from bridge.cluster.index import IndexState
    from bridge.profile import IndexProfile
    from bridge.settings import Settings
    from ingest.verification import Verification

max_missing_option = click.option(
    "--max-missing",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Documents that may lack its fields, or hold those of an older text.",
)
min_recall_option = click.option(
    "--min-recall",
    type=click.FloatRange(0, 1),
    default=0.9,
    show_default=True,
    help="Share of the nearest neighbours that k-NN search must find.",
)


@click.group(name="generation")
def command() -> None:
    """Change the models of an index that is in use, and back again.

    A second generation of vectors and predicted queries is filled beside the first, in fields of its own,
    while searches go on with the first; `cutover` lets searches use it, `rollback` takes that back, `drop`
    removes the one that serves no searches. No search ever mixes the two.
    """


command.add_command(generation_fill.command)


@command.command()
@click.argument("index")
@cluster_option
@json_option
@click.pass_context
def status(ctx: click.Context, index: str, cluster_url: str | None, as_json: bool) -> None:
    """Show which generations stand in INDEX, which of them serves searches, and how full each is."""
    client, state = _looked(ctx, index, cluster_url)
    from bridge.cluster import index as indices

    documents = indices.count(client, state.name)
    standing = [profile for profile in (state.profile, state.beside) if profile]
    shown = [
        {
            "generation": profile.generation,
            "serves": profile is state.profile,
            "enriched": indices.count_enriched(client, state.name, profile),
            "encoder": profile.encoder.identity,
            "generator": profile.generator.identity if profile.generator else None,
            "object": profile.generation_field,
        }
        for profile in standing
    ]
    if as_json:
        click.echo(json.dumps({"index": state.name, "documents": documents, "generations": shown}, indent=2))
        return
    click.echo(f"{state.name}: {documents:,} documents")
    for one in shown:
        role = "serves searches" if one["serves"] else "stands beside"
        click.echo(
            f"  generation {one['generation']} {role}: {one['enriched']:,} documents have it, in {one['object']}"
        )
        click.echo(f"    models  {one['encoder']}, {one['generator'] or 'no generator'}")
    if not shown:
        click.echo("  the bridge has not been here")


@command.command()
@click.argument("index")
@click.option("--serving", is_flag=True, help="Look at the generation that serves searches instead.")
@max_missing_option
@min_recall_option
@cluster_option
@json_option
@click.pass_context
def verify(
    ctx: click.Context,
    index: str,
    serving: bool,
    max_missing: int,
    min_recall: float,
    cluster_url: str | None,
    as_json: bool,
) -> None:
    """Look whether the generation that stands beside may serve searches of INDEX; nothing is written.

    Every document must have its fields, made by one recipe; a sample must hold its present text; and k-NN
    search must find the nearest neighbours of a sample. Exit code 1 where something is amiss.
    """
    client, state = _looked(ctx, index, cluster_url)
    from bridge.cluster.generations import other

    profile = state.profile if serving and state.profile else other(state)
    found = _verified(client, state, profile, max_missing, min_recall)
    click.echo(json.dumps(msgspec.to_builtins(found), indent=2) if as_json else _described(found))
    ctx.exit(1 if found.problems else 0)


@command.command()
@click.argument("index")
@max_missing_option
@min_recall_option
@click.option("--sidecar", "sidecar_url", help="Sidecar that must run the new encoder; the proxy's by default.")
@click.option("--force", is_flag=True, help="Cut over whatever the verification and the sidecar say.")
@cluster_option
@click.pass_context
def cutover(
    ctx: click.Context,
    index: str,
    max_missing: int,
    min_recall: float,
    sidecar_url: str | None,
    force: bool,
    cluster_url: str | None,
) -> None:
    """Let searches of INDEX use the newer generation, which is verified first.

    One change of the mapping's `_meta`: each proxy follows when it reads the profile the next time
    (proxy.profile_ttl_s). The older generation stays beside it: see `rollback`.
    """
    client, state = _looked(ctx, index, cluster_url)
    from bridge.cluster.generations import newer, serve_other
    from bridge.errors import IndexUnsuitable

    profile = newer(state)
    found = _verified(client, state, profile, max_missing, min_recall)
    settings = settings_of(ctx)
    problems = [*found.problems, *_sidecar_problems(settings, sidecar_url or settings.proxy.sidecar_url, profile)]
    click.echo(_described(found))
    if problems and not force:
        raise IndexUnsuitable(
            f"generation {profile.generation} of {state.name} was not cut over to; searches go on as they were:\n"
            + "\n".join(f"  - {problem}" for problem in problems)
            + "\nSee to that, or take it as it is with --force"
        )
    serve_other(client, state.name)
    click.echo(f"generation {profile.generation} serves searches now")
    click.echo(f"  the way back: neural-bridge generation rollback {index}")


@command.command()
@click.argument("index")
@cluster_option
@click.pass_context
def rollback(ctx: click.Context, index: str, cluster_url: str | None) -> None:
    """Let searches of INDEX use the older generation again; the newer one stays beside it.

    At once and unverified. How many documents the older generation lacks is told.
    """
    client, state = _looked(ctx, index, cluster_url)
    from bridge.cluster import index as indices
    from bridge.cluster.generations import older, serve_other

    profile = older(state)
    serve_other(client, state.name)
    missing = indices.count(client, state.name) - indices.count_enriched(client, state.name, profile)
    click.echo(f"generation {profile.generation} ({profile.encoder.identity}) serves searches of {state.name} again")
    if missing:
        click.echo(
            f"  {missing:,} documents lack its fields and are found by their text alone: neural-bridge backfill {index}"
        )


@command.command()
@click.argument("index")
@click.option("--yes", is_flag=True, help="Do not ask.")
@cluster_option
@json_option
@click.pass_context
def drop(ctx: click.Context, index: str, yes: bool, cluster_url: str | None, as_json: bool) -> None:
    """Take the generation that serves no searches out of every document of INDEX.

    After that there is no way back to it. Its fields stay in the mapping, empty, since no field can be removed.
    """
    client, state = _looked(ctx, index, cluster_url)
    from bridge.cluster.generations import other
    from bridge.cluster.removal import drop as drop_beside

    beside = other(state)
    if not yes:
        question = f"Remove generation {beside.generation} ({beside.encoder.identity}) from index {state.name}?"
        click.confirm(question, abort=True, err=True)
    gone, done = drop_beside(client, state.name)
    if as_json:
        more = {"generation": gone.generation, "documents": done.documents, "mapped_fields": done.mapped_fields}
        click.echo(json.dumps(more))
        return
    click.echo(f"{index}: generation {gone.generation} is out of {done.documents:,} documents, none holds it")
    click.echo(f"  still in the mapping, empty: {', '.join(done.mapped_fields)}")


def _looked(ctx: click.Context, index: str, cluster_url: str | None) -> "tuple[OpenSearch, IndexState]":
    settings = settings_of(ctx, cluster={"url": cluster_url})
    from bridge.cluster import index as indices
    from bridge.cluster.connection import connect

    client = connect(settings.cluster)
    return client, indices.look(client, index)


def _verified(
    client: "OpenSearch", state: "IndexState", profile: "IndexProfile", max_missing: int, min_recall: float
) -> "Verification":
    from ingest.verification import verify as verify_generation

    return verify_generation(client, state, profile, max_missing=max_missing, min_recall=min_recall)


def _sidecar_problems(settings: "Settings", url: str, profile: "IndexProfile") -> list[str]:
    """Why searches would go without vectors, as far as the sidecar tells."""
    from bridge.errors import SidecarError
    from bridge.sidecar_info import served_encoders

    try:
        served = served_encoders(url, api_key=settings.sidecar.api_key)
    except SidecarError as error:
        return [str(error)]
    if profile.encoder.identity in served:
        return []
    return [
        f"the sidecar at {url} runs {', '.join(served)}, not {profile.encoder.identity}: name both encoders in its "
        f"settings (sidecar.more_encoders), or searches go without vectors until it runs the new one"
    ]


def _described(found: "Verification") -> str:
    recall = f"{found.recall:.1%}" if found.recall is not None else "not measured, no document has a vector"
    lines = [
        f"{found.index}, generation {found.generation} by {found.encoder}:",
        f"  {found.enriched:,} of {found.documents:,} documents have it, {found.made_alike:,} made alike",
        f"  of {found.sampled:,} sampled documents {found.outdated:,} hold an older text",
        f"  k-NN search finds the nearest neighbours of {found.compared:,} documents: {recall}",
        *(f"  problem: {problem}" for problem in found.problems),
    ]
    return "\n".join(lines if found.problems else [*lines, "  it may serve searches"])
