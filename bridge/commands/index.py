"""`neural-bridge index`: create, show and remove enriched indices, and say what the proxy leaves alone."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bridge.commands import confirm, settings_of
from bridge.errors import UsageError

if TYPE_CHECKING:
    from bridge.cluster.dialects import VectorEngine
    from bridge.cluster.schema import Dynamic
    from bridge.profile import PassageSettings

cluster_option = click.option("--cluster", "cluster_url", help="Address of the cluster, scheme included.")
_RULE = click.Choice(["leave", "upgrade"])
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")


def passage_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that `passage_settings` takes."""
    for option in (
        click.option("--overlap-tokens", type=click.IntRange(min=0), help="Tokens that passages share."),
        click.option("--max-tokens", type=click.IntRange(min=1), help="Longest passage, in the encoder's tokens."),
        click.option(
            "--passages",
            "layout",
            type=click.Choice(["single", "nested"]),
            default="single",
            show_default=True,
            help="One vector per document, or one per passage of long documents.",
        ),
    ):
        command = option(command)
    return command


def passage_settings(layout: str, max_tokens: int | None, overlap_tokens: int | None) -> "PassageSettings":
    """The passage settings that the options ask for; defaults where they are silent."""
    from bridge.profile import PassageSettings

    given = {"layout": layout, "max_tokens": max_tokens, "overlap_tokens": overlap_tokens}
    return PassageSettings(**{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]


@click.group(name="index")
def command() -> None:
    """Create, show and remove enriched indices."""


@command.command()
@click.argument("index")
@click.option("--text-field", "text_fields", multiple=True, required=True, help="Field to enrich; repeat it.")
@click.option("--analyzer", default="english", show_default=True, help="Analyser of the text fields.")
@click.option(
    "--engine",
    type=click.Choice(["lucene", "faiss"]),
    default="lucene",
    show_default=True,
    help="Library of the vector graphs; faiss needs native libraries on the nodes.",
)
@click.option(
    "--dynamic",
    type=click.Choice(["true", "false", "strict"]),
    default="true",
    show_default=True,
    help="What the cluster does with fields that the mapping lacks.",
)
@click.option(
    "--mapping",
    "mapping_file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="JSON file with the `properties` of the application's other fields.",
)
@click.option("--shards", type=click.IntRange(min=1), help="Primary shards.")
@click.option("--replicas", type=click.IntRange(min=0), help="Copies of each shard.")
@passage_options
@click.option("--encoder", help="Encoder of the vectors: path or built-in.")
@click.option("--generator", help="Generator of predicted queries: path or built-in.")
@cluster_option
@json_option
@click.pass_context
def create(
    ctx: click.Context,
    index: str,
    text_fields: tuple[str, ...],
    analyzer: str,
    engine: "VectorEngine",
    dynamic: "Dynamic",
    mapping_file: Path | None,
    shards: int | None,
    replicas: int | None,
    layout: str,
    max_tokens: int | None,
    overlap_tokens: int | None,
    encoder: str | None,
    generator: str | None,
    cluster_url: str | None,
    as_json: bool,
) -> None:
    """Create INDEX with our object in its mapping, ready for `neural-bridge ingest`."""
    settings = settings_of(ctx, cluster={"url": cluster_url}, ingest={"encoder": encoder, "generator": generator})
    from bridge.cluster import index as indices
    from bridge.cluster.connection import connect
    from ingest.stages.models import planned_profile

    profile = planned_profile(
        settings.ingest, text_fields, passages=passage_settings(layout, max_tokens, overlap_tokens)
    )
    sizes = {"index.number_of_shards": shards, "index.number_of_replicas": replicas}
    indices.create(
        connect(settings.cluster),
        index,
        profile,
        analyzer=analyzer,
        engine=engine,
        properties=_properties(mapping_file) if mapping_file else None,
        settings={name: size for name, size in sizes.items() if size is not None},
        dynamic=dynamic,
    )
    if as_json:
        click.echo(json.dumps({"index": index, "created": True, "profile": profile.to_meta()}, indent=2))
    else:
        click.echo(f"index {index} created; fill it with: neural-bridge ingest {index} FILE...")


@command.command()
@click.argument("index")
@cluster_option
@json_option
@click.pass_context
def show(ctx: click.Context, index: str, cluster_url: str | None, as_json: bool) -> None:
    """Show what the bridge knows of INDEX: models, fields, and how many documents are enriched."""
    settings = settings_of(ctx, cluster={"url": cluster_url})
    from bridge.cluster import index as indices
    from bridge.cluster.connection import connect

    client = connect(settings.cluster)
    state = indices.look(client, index)
    documents = indices.count(client, state.name)
    profile = state.profile
    enriched = indices.count_enriched(client, state.name, profile) if profile else 0
    if as_json:
        shown = {"index": state.name, "documents": documents, "enriched": enriched}
        click.echo(json.dumps({**shown, "profile": profile.to_meta() if profile else None}, indent=2))
    elif profile is None:
        click.echo(f"{state.name}: {documents:,} documents; the bridge has not been here")
    else:
        click.echo(f"{state.name}: {documents:,} documents, {enriched:,} enriched")
        click.echo(f"  text fields  {', '.join(profile.text_fields)}")
        click.echo(f"  encoder      {profile.encoder.identity}, {profile.dimension} dimensions")
        click.echo(f"  generator    {profile.generator.identity if profile.generator else 'none'}")
        click.echo(f"  passages     {profile.passages.layout}")
        click.echo(f"  stages       {', '.join(profile.stages)}")


@command.command()
@click.argument("index")
@click.option("--quoted", type=_RULE, help="Words in quotation marks: leave or upgrade.")
@click.option(
    "--identifiers", type=_RULE, help="Single words with three digits or more, such as part numbers: the same."
)
@click.option(
    "--sorted-ties",
    type=_RULE,
    help="Searches sorted by score and then by more: the same; not for applications that page by search_after.",
)
@click.option("--scripts", help="Scripts that the models read, such as latin,greek; others are left. Any: upgrade all.")
@click.option(
    "--confident-lead",
    type=click.FloatRange(min=1),
    help="Where the words' first hit scores so many times the second, no other leg and no reranker is heard.",
)
@click.option("--always", is_flag=True, help="No --confident-lead: all legs are heard always.")
@cluster_option
@json_option
@click.pass_context
def rules(
    ctx: click.Context,
    index: str,
    quoted: str | None,
    identifiers: str | None,
    sorted_ties: str | None,
    scripts: str | None,
    confident_lead: float | None,
    always: bool,
    cluster_url: str | None,
    as_json: bool,
) -> None:
    """Say which searches of INDEX the proxy leaves as they are, and show what holds.

    Proxies obey within proxy.profile_ttl_s.
    """
    if always and confident_lead is not None:
        raise UsageError("--always and --confident-lead contradict each other: give one of them")
    settings = settings_of(ctx, cluster={"url": cluster_url})
    import msgspec

    from bridge.cluster import index as indices
    from bridge.cluster.connection import connect

    client = connect(settings.cluster)
    given = {"leave_quoted": quoted, "leave_identifiers": identifiers, "leave_sorted_ties": sorted_ties}
    chosen: dict[str, object] = {name: rule == "leave" for name, rule in given.items() if rule is not None}
    if scripts is not None:
        named = [script.strip().lower() for script in scripts.split(",")]
        chosen["scripts"] = [] if named == ["any"] else named
    if always or confident_lead is not None:
        chosen["confident_lead"] = confident_lead
    profile = indices.put_profile(
        client,
        index,
        lambda kept: msgspec.structs.replace(kept, rules=msgspec.structs.replace(kept.rules, **chosen)),
    )
    held = profile.rules
    if as_json:
        click.echo(json.dumps({"index": index, "rules": msgspec.to_builtins(held)}, indent=2))
        return
    for name, leave in (
        ("quoted", held.leave_quoted),
        ("identifiers", held.leave_identifiers),
        ("sorted ties", held.leave_sorted_ties),
    ):
        click.echo(f"{name:<15} {'leave' if leave else 'upgrade'}")
    click.echo(f"{'scripts':<15} {', '.join(held.scripts) or 'any'}")
    click.echo(f"{'confident lead':<15} {held.confident_lead or 'none'}")


@command.command()
@click.argument("index")
@click.option("--yes", is_flag=True, help="Do not ask.")
@cluster_option
@json_option
@click.pass_context
def delete(ctx: click.Context, index: str, yes: bool, cluster_url: str | None, as_json: bool) -> None:
    """Delete INDEX and all its documents."""
    settings = settings_of(ctx, cluster={"url": cluster_url})
    from bridge.cluster import index as indices
    from bridge.cluster.connection import connect

    client = connect(settings.cluster)
    state = indices.look(client, index)
    documents = indices.count(client, state.name)
    if not yes:
        confirm(f"Delete index {state.name} and its {documents:,} documents?")
    indices.delete(client, state.name)
    if as_json:
        click.echo(json.dumps({"index": state.name, "deleted": True, "documents": documents}))
    else:
        click.echo(f"index {state.name} deleted, {documents:,} documents with it")


def _properties(file: Path) -> dict[str, Any]:
    from bridge.errors import UsageError

    try:
        content = json.loads(file.read_bytes())
    except ValueError as error:
        raise UsageError(f"mapping file {file} is no JSON: {error}") from error
    properties = content.get("properties", content) if isinstance(content, dict) else None
    if not isinstance(properties, dict):
        raise UsageError(f'mapping file {file}: expected {{"properties": {{…}}}}')
    return properties
