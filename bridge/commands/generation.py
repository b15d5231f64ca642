"""`neural-bridge generation`: another encoder for an index in use, and the way back."""

import json

import click

from bridge.commands import confirm, generation_cutover, generation_fill
from bridge.commands.generation_cutover import looked
from bridge.commands.index import cluster_option, json_option


@click.group(name="generation")
def command() -> None:
    """Change the models of an index that is in use, and back again.

    A second generation of vectors and predicted queries is filled beside the first, in fields of its own,
    while searches go on with the first; `cutover` lets searches use it, `rollback` takes that back, `drop`
    removes the one that serves no searches. No search ever mixes the two.
    """


for subcommand in (generation_fill.command, generation_cutover.verify, generation_cutover.cutover):
    command.add_command(subcommand)


@command.command()
@click.argument("index")
@cluster_option
@json_option
@click.pass_context
def status(ctx: click.Context, index: str, cluster_url: str | None, as_json: bool) -> None:
    """Show which generations stand in INDEX, which of them serves searches, and how full each is."""
    client, state = looked(ctx, index, cluster_url)
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
@cluster_option
@json_option
@click.pass_context
def rollback(ctx: click.Context, index: str, cluster_url: str | None, as_json: bool) -> None:
    """Let searches of INDEX use the older generation again; the newer one stays beside it.

    At once and unverified. How many documents the older generation lacks is told.
    """
    client, state = looked(ctx, index, cluster_url)
    from bridge.cluster import index as indices
    from bridge.cluster.generations import older, serve_other

    profile = older(state)
    serve_other(client, state.name)
    missing = indices.count(client, state.name) - indices.count_enriched(client, state.name, profile)
    if as_json:
        click.echo(json.dumps({"index": state.name, "generation": profile.generation, "missing": missing}))
        return
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
    client, state = looked(ctx, index, cluster_url)
    from bridge.cluster.generations import other
    from bridge.cluster.removal import drop as drop_beside

    beside = other(state)
    if not yes:
        question = f"Remove generation {beside.generation} ({beside.encoder.identity}) from index {state.name}?"
        confirm(question)
    gone, done = drop_beside(client, state.name)
    if as_json:
        more = {"generation": gone.generation, "documents": done.documents, "mapped_fields": done.mapped_fields}
        click.echo(json.dumps(more))
        return
    click.echo(f"{index}: generation {gone.generation} is out of {done.documents:,} documents, none holds it")
    click.echo(f"  still in the mapping, empty: {', '.join(done.mapped_fields)}")
