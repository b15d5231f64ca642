"""`neural-bridge index`: create, show and delete enriched indices, and choose which searches the proxy leaves alone."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bridge.commands import CLUSTER, INDEX, JSON, YES, confirm, enriched, look_at, settings_of, show
from bridge.commands.options.enrich import PassageOptions
from bridge.commands.options.signature import EXISTING_FILE, cli_command, option
from bridge.errors import UsageError

if TYPE_CHECKING:
    from bridge.cluster.dialects import VectorEngine
    from bridge.cluster.schema import Dynamic
    from bridge.profile import SearchRules

_RULE = click.Choice(["leave", "upgrade"])


@click.group(name="index")
def command() -> None:
    """Create, show and delete enriched indices; set proxy rules."""


@cli_command(of=command)
def create(
    ctx: click.Context,
    *,
    index: str = INDEX,
    text_fields: tuple[str, ...] = option(
        "--text-field", multiple=True, required=True, help="Field to enrich; repeatable."
    ),
    analyzer: str = option("--analyzer", default="english", help="Analyzer of the text fields."),
    engine: "VectorEngine" = option(
        "--engine",
        type=click.Choice(["lucene", "faiss"]),
        default="lucene",
        help="Library for the vector graphs; faiss needs native libraries on the nodes.",
    ),
    dynamic: "Dynamic" = option(
        "--dynamic",
        type=click.Choice(["true", "false", "strict"]),
        default="true",
        help="How the cluster treats fields that are not in the mapping.",
    ),
    mapping_file: Path | None = option(
        "--mapping", type=EXISTING_FILE, help="JSON file with the `properties` of the application's other fields."
    ),
    shards: int | None = option("--shards", type=click.IntRange(min=1), help="Primary shards."),
    replicas: int | None = option("--replicas", type=click.IntRange(min=0), help="Copies of each shard."),
    k1: float | None = option(
        "--k1",
        type=click.FloatRange(min=0),
        help="BM25: how much a word's repetitions in a text count. Defaults to the engine's, 1.2.",
    ),
    b: float | None = option(
        "--b",
        type=click.FloatRange(0, 1),
        help="BM25: how much longer texts pay (pivoted length normalisation). Defaults to the engine's, 0.75.",
    ),
    passages: PassageOptions,
    encoder: str | None = option("--encoder", help="Encoder of the vectors: path or built-in name."),
    sparse_encoder: str | None = option(
        "--sparse-encoder", help="Sparse encoder that gives documents weighted terms: path or built-in name."
    ),
    image_field: str | None = option(
        "--image-field", help="Field that names or holds a picture, which gets a vector of its own."
    ),
    image_encoder: str | None = option("--image-encoder", help="Image encoder that embeds pictures: path or hub name."),
    generator: str | None = option("--generator", help="Generator of predicted queries: path or built-in name."),
    cluster_url: str | None = CLUSTER,
    as_json: bool = JSON,
) -> None:
    """Create INDEX with the bridge's fields in its mapping, ready for `neural-bridge ingest`."""
    made_by = {"encoder": encoder, "sparse_encoder": sparse_encoder, "generator": generator}
    made_by |= {"image_field": image_field, "image_encoder": image_encoder}
    settings = settings_of(ctx, cluster={"url": cluster_url}, ingest=made_by)
    from bridge.cluster import index as indices
    from bridge.cluster.connection import connect
    from bridge.cluster.schema import Bm25
    from ingest.stages.models import planned_profile

    profile = planned_profile(settings.ingest, text_fields, passages=passages.settings())
    sizes = {"index.number_of_shards": shards, "index.number_of_replicas": replicas}
    bm25 = {name: value for name, value in (("k1", k1), ("b", b)) if value is not None}
    indices.create(
        connect(settings.cluster),
        index,
        profile,
        analyzer=analyzer,
        engine=engine,
        properties=_properties(mapping_file) if mapping_file else None,
        settings={
            **{name: size for name, size in sizes.items() if size is not None},
            **(Bm25(**bm25).settings() if bm25 else {}),
        },
        dynamic=dynamic,
    )
    show(
        {"index": index, "created": True, "profile": profile.to_meta()},
        f"index {index} created; fill it with: neural-bridge ingest {index} FILE...",
        as_json=as_json,
    )


@cli_command("show", of=command)
def show_index(
    ctx: click.Context, *, index: str = INDEX, cluster_url: str | None = CLUSTER, as_json: bool = JSON
) -> None:
    """Show what the bridge knows about INDEX: models, fields, and how many documents are enriched."""
    client, state = look_at(ctx, index, cluster_url)
    from bridge.cluster import companion
    from bridge.cluster import index as indices

    documents = indices.count(client, state.name)
    prefix = settings_of(ctx).companion.prefix
    ours = companion.find(client, state.name, prefix) if state.profile is None else None
    profile = ours.profile if ours else state.profile
    enriched = indices.count_enriched(client, ours.name if ours else state.name, profile) if profile else 0
    lines = [f"{state.name}: {documents:,} documents; not enriched by the bridge"]
    if profile:
        lines = [
            f"{state.name}: {documents:,} documents, {enriched:,} enriched",
            *([f"  companion    {ours.name}"] if ours else []),
            f"  text fields  {', '.join(profile.text_fields)}",
            f"  encoder      {profile.encoder.identity}, {profile.dimension} dimensions",
            *([f"  terms        {profile.sparse.encoder.identity}"] if profile.sparse else []),
            *(
                [f"  pictures     {profile.image.encoder.identity}, of field {profile.image.field}"]
                if profile.image
                else []
            ),
            f"  generator    {profile.generator.identity if profile.generator else 'none'}",
            f"  passages     {profile.passages.layout}",
            f"  stages       {', '.join(profile.stages)}",
            *([f"  confidence   calibrated, AUC {made.auc:.3f}"] if (made := profile.valid_calibration) else []),
        ]
    where = {"companion": ours.name if ours else None}
    shown = {"index": state.name, "documents": documents, "enriched": enriched, **where}
    show({**shown, "profile": profile.to_meta() if profile else None}, *lines, as_json=as_json)


@cli_command(of=command)
def rules(
    ctx: click.Context,
    *,
    index: str = INDEX,
    quoted: str | None = option("--quoted", type=_RULE, help="Leave or upgrade searches with quotation marks."),
    identifiers: str | None = option(
        "--identifiers",
        type=_RULE,
        help="Leave or upgrade single words with three digits or more, such as part numbers.",
    ),
    sorted_ties: str | None = option(
        "--sorted-ties",
        type=_RULE,
        help="Leave or upgrade searches sorted by score first, then by more; leave them if the application pages by "
        "search_after.",
    ),
    scripts: str | None = option(
        "--scripts",
        help="Writing systems that the models read, such as latin,greek; leave searches in others. `any` upgrades all.",
    ),
    confident_lead: float | None = option(
        "--confident-lead",
        type=click.FloatRange(min=1),
        help="Keep the application's own ranking if its first hit scores this many times the second.",
    ),
    boosts: float | None = option(
        "--boosts",
        type=click.FloatRange(min=0, max=1),
        help="How much the application's own pins and boosts count in the bridge's ranking; 0: only in the text legs.",
    ),
    diversity: float | None = option(
        "--diversity",
        type=click.FloatRange(min=0, max=1),
        help="How much a document's likeness to those before it counts against it, such as 0.3; 0: not at all.",
    ),
    sentences: str | None = option(
        "--sentences",
        type=click.Choice(["show", "omit"]),
        help="Show the sentence that answers in place of a highlight that the application wants and a hit lacks.",
    ),
    repair: str | None = option(
        "--repair",
        type=click.Choice(["on", "off"]),
        help="Rank by near words in place of misspelt ones, which no document holds.",
    ),
    always: bool = option("--always", help="Remove --confident-lead: always ask every leg and the reranker."),
    cluster_url: str | None = CLUSTER,
    as_json: bool = JSON,
) -> None:
    """Set which searches of INDEX the proxy leaves unchanged and what counts in the others, and show the rules.

    Proxies follow within proxy.profile_ttl_s.
    """
    if always and confident_lead is not None:
        raise UsageError("--always and --confident-lead contradict each other: give one of them")
    client, state = enriched(ctx, index, cluster_url)
    import msgspec

    from bridge.cluster.index import put_profile

    options = {"leave_quoted": quoted, "leave_identifiers": identifiers, "leave_sorted_ties": sorted_ties}
    changes: dict[str, object] = {name: rule == "leave" for name, rule in options.items() if rule is not None}
    if scripts is not None:
        names = [script.strip().lower() for script in scripts.split(",")]
        changes["scripts"] = [] if names == ["any"] else names
    if always or confident_lead is not None:
        changes["confident_lead"] = confident_lead
    changes |= {name: value for name, value in (("boosts", boosts), ("diversity", diversity)) if value is not None}
    if sentences is not None:
        changes["sentences"] = sentences == "show"
    if repair is not None:
        changes["repair"] = repair == "on"
    profile = put_profile(
        client,
        state.name,
        lambda old: msgspec.structs.replace(old, rules=msgspec.structs.replace(old.rules, **changes)),
    )
    lines = [f"{name:<15} {value}" for name, value in _in_words(profile.rules).items()]
    show({"index": index, "rules": msgspec.to_builtins(profile.rules)}, *lines, as_json=as_json)


def _in_words(rules: "SearchRules") -> dict[str, object]:
    return {
        "quoted": "leave" if rules.leave_quoted else "upgrade",
        "identifiers": "leave" if rules.leave_identifiers else "upgrade",
        "sorted ties": "leave" if rules.leave_sorted_ties else "upgrade",
        "scripts": ", ".join(rules.scripts) or "any",
        "confident lead": rules.confident_lead or "none",
        "boosts": rules.boosts,
        "diversity": rules.diversity,
        "sentences": "show" if rules.sentences else "omit",
        "repair": "on" if rules.repair else "off",
    }


@cli_command(of=command)
def delete(
    ctx: click.Context, *, index: str = INDEX, yes: bool = YES, cluster_url: str | None = CLUSTER, as_json: bool = JSON
) -> None:
    """Delete INDEX and all its documents."""
    client, state = look_at(ctx, index, cluster_url)
    from bridge.cluster import index as indices

    documents = indices.count(client, state.name)
    if not yes:
        confirm(f"Delete index {state.name} and its {documents:,} documents?")
    indices.delete(client, state.name)
    show(
        {"index": state.name, "deleted": True, "documents": documents},
        f"index {state.name} deleted, with its {documents:,} documents",
        as_json=as_json,
    )


def _properties(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_bytes())
    except ValueError as error:
        raise UsageError(f"mapping file {file} is not JSON: {error}") from error
    properties = content.get("properties", content) if isinstance(content, dict) else None
    if not isinstance(properties, dict):
        raise UsageError(f'mapping file {file}: expected {{"properties": {{…}}}}')
    return properties
