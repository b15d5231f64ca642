"""`neural-bridge generation verify` and `cutover`: may the other generation serve searches, and let it."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click
import msgspec

from bridge.commands import settings_of
from bridge.commands.index import cluster_option, json_option

if TYPE_CHECKING:
    from opensearchpy import OpenSearch

    from bridge.cluster.index import IndexState
    from bridge.evaluation.generation_quality import GenerationQuality
    from bridge.profile import IndexProfile
    from ingest.runs.verify import Verification

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
sidecar_option = click.option(
    "--sidecar", "sidecar_url", help="Sidecar that must run the new encoder; the proxy's by default."
)


class _Sidecar(NamedTuple):
    """Where the sidecar is, and the key that it asks for."""

    url: str
    key: str | None


@click.command()
@click.argument("index")
@click.option("--serving", is_flag=True, help="Look at the generation that serves searches instead.")
@max_missing_option
@min_recall_option
@click.option(
    "--judgements",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="Judgement list (CSV of Quepid, JSON of the Search Relevance Workbench): whose vectors find more?",
)
@sidecar_option
@cluster_option
@json_option
@click.pass_context
def verify(
    ctx: click.Context,
    index: str,
    serving: bool,
    max_missing: int,
    min_recall: float,
    judgements: Path | None,
    sidecar_url: str | None,
    cluster_url: str | None,
    as_json: bool,
) -> None:
    """Look whether the generation that stands beside may serve searches of INDEX; nothing is written.

    Every document must have its fields, made by one recipe; a sample must hold its present text; and k-NN
    search must find the nearest neighbours of a sample. With judgements, k-NN search by its vectors is compared
    with that by the serving ones, for which the sidecar must run both encoders. Exit code 1 where something is
    amiss.
    """
    client, state = looked(ctx, index, cluster_url)
    from bridge.cluster.generations import other

    profile = state.profile if serving and state.profile else other(state)
    found = _verified(client, state, profile, max_missing, min_recall)
    quality = _quality(client, state, judgements, _sidecar(ctx, sidecar_url)) if judgements else None
    if as_json:
        click.echo(json.dumps({**msgspec.to_builtins(found), "quality": msgspec.to_builtins(quality)}, indent=2))
    else:
        click.echo(_described(found))
        if quality is not None:
            click.echo(_compared(quality))
    ctx.exit(1 if found.problems or (quality is not None and quality.is_worse) else 0)


@click.command()
@click.argument("index")
@max_missing_option
@min_recall_option
@sidecar_option
@click.option("--force", is_flag=True, help="Cut over whatever the verification and the sidecar say.")
@cluster_option
@json_option
@click.pass_context
def cutover(
    ctx: click.Context,
    index: str,
    max_missing: int,
    min_recall: float,
    sidecar_url: str | None,
    force: bool,
    cluster_url: str | None,
    as_json: bool,
) -> None:
    """Let searches of INDEX use the newer generation, which is verified first.

    One change of the mapping's `_meta`: each proxy follows when it reads the profile the next time
    (proxy.profile_ttl_s). The older generation stays beside it: see `rollback`.
    """
    client, state = looked(ctx, index, cluster_url)
    from bridge.cluster.generations import newer, serve_other
    from bridge.errors import IndexUnsuitable

    profile = newer(state)
    found = _verified(client, state, profile, max_missing, min_recall)
    problems = [*found.problems, *_sidecar_problems(_sidecar(ctx, sidecar_url), profile)]
    if not as_json:
        click.echo(_described(found))
    if problems and not force:
        raise IndexUnsuitable(
            f"generation {profile.generation} of {state.name} was not cut over to; searches go on as they were:\n"
            + "\n".join(f"  - {problem}" for problem in problems)
            + "\nSee to that, or take it as it is with --force"
        )
    serve_other(client, state.name)
    if as_json:
        click.echo(json.dumps({**msgspec.to_builtins(found), "serving": True}, indent=2))
        return
    click.echo(f"generation {profile.generation} serves searches now")
    click.echo(f"  the way back: neural-bridge generation rollback {index}")


def looked(ctx: click.Context, index: str, cluster_url: str | None) -> "tuple[OpenSearch, IndexState]":
    """A client, and the index as it is."""
    settings = settings_of(ctx, cluster={"url": cluster_url})
    from bridge.cluster import index as indices
    from bridge.cluster.connection import connect

    client = connect(settings.cluster)
    return client, indices.look(client, index)


def _verified(
    client: "OpenSearch", state: "IndexState", profile: "IndexProfile", max_missing: int, min_recall: float
) -> "Verification":
    from ingest.runs.verify import verify as verify_generation

    return verify_generation(client, state, profile, max_missing=max_missing, min_recall=min_recall)


def _sidecar(ctx: click.Context, url: str | None) -> _Sidecar:
    settings = settings_of(ctx)
    key = settings.sidecar.api_key
    return _Sidecar(url or settings.proxy.sidecar_url, key.get_secret_value() if key else None)


def _sidecar_problems(sidecar: _Sidecar, profile: "IndexProfile") -> list[str]:
    """Why searches would go without vectors, as far as the sidecar tells."""
    from bridge.errors import SidecarError
    from bridge.model_servers.client import ModelServer

    try:
        served = ModelServer(sidecar.url, api_key=sidecar.key, timeout_s=5.0).info().embedding_model_ids
    except SidecarError as error:
        return [f"{error}, or name another one with --sidecar"]
    if profile.encoder.identity in served:
        return []
    return [
        f"the sidecar at {sidecar.url} runs {', '.join(served)}, not {profile.encoder.identity}: name both in its "
        f"settings (sidecar.more_encoders), or searches go without vectors until it runs the new one"
    ]


def _quality(client: "OpenSearch", state: "IndexState", judgements: Path, sidecar: _Sidecar) -> "GenerationQuality":
    from bridge.cluster.generations import other
    from bridge.errors import UsageError

    try:
        from bridge.evaluation.generation_quality import compare_generations
        from bridge.evaluation.judgement_files import read_judgement_list
        from bridge.model_servers.client import SidecarClient
    except ModuleNotFoundError as error:
        raise UsageError(
            f"--judgements needs the package {error.name}: pip install 'opensearch-neural-bridge[evaluate]'"
        ) from error
    beside = other(state)
    with SidecarClient(sidecar.url, api_key=sidecar.key) as asked:
        return compare_generations(
            client,
            state.name,
            read_judgement_list(judgements),
            serving=state.profile or beside,
            other=beside,
            embed=lambda text, encoder: asked.embed(text, model=encoder),
        )


def _compared(quality: "GenerationQuality") -> str:
    verdict = "worse" if quality.is_worse else "better" if quality.low > 0 else "not certainly better or worse"
    return (
        f"  {quality.measure} of k-NN search alone over {quality.queries:,} queries ({quality.judgements}): "
        f"{quality.other_mean:.3f}, the serving one {quality.serving_mean:.3f}; difference {quality.difference:+.3f} "
        f"[{quality.low:+.3f}, {quality.high:+.3f}], p {quality.p_value:.3f}: {verdict}"
    )


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
