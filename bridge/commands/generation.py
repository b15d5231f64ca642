"""`neural-bridge generation`: another encoder for an index in use, and the way back."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec
from click.core import ParameterSource

from bridge.commands import CLUSTER, INDEX, JSON, YES, confirm, connected, needs_extra, say, settings_of, show
from bridge.commands.options.enrich import EnrichOptions, RunOptions, end
from bridge.commands.options.signature import EXISTING_FILE, cli_command, option

if TYPE_CHECKING:
    from opensearchpy import OpenSearch

    from bridge.cluster.generations import Generations
    from bridge.evaluation.generation_quality import GenerationQuality
    from bridge.profile import IndexProfile
    from ingest.runs.verify import Verification

_PASSAGE_OPTIONS = ("layout", "max_tokens", "overlap_tokens")
_SIDECAR_TIMEOUT_S = 5.0

_MAX_MISSING = option(
    "--max-missing",
    type=click.IntRange(min=0),
    default=0,
    help="Documents that may lack its fields, or hold those of an older text.",
)
_MIN_RECALL = option(
    "--min-recall",
    type=click.FloatRange(0, 1),
    default=0.9,
    help="Share of the nearest neighbours that k-NN search must find.",
)
_SIDECAR = option("--sidecar", help="Sidecar that must run the new encoder. Defaults to the proxy's.")


@click.group(name="generation")
def command() -> None:
    """Change the models of an index that is in use, and change back.

    `fill` writes a second generation of vectors and predicted queries beside the first, in fields of its own,
    while searches use the first. `cutover` switches searches to it, `rollback` switches back, `drop` removes
    the generation that serves no searches. No search ever mixes the two.
    """


@cli_command(of=command)
def fill(ctx: click.Context, *, index: str = INDEX, enrich: EnrichOptions, run: RunOptions) -> None:
    """Fill a second generation beside the one that serves searches of INDEX.

    Starts a generation, or continues the one that is being filled: rerun the command after an interruption.
    Text fields and passages are those of the first generation unless options change them. The index needs
    space for both. Exit codes as of `neural-bridge backfill`.
    """
    settings = enrich.settings(ctx, **run.limits())
    from bridge.cluster import index as indices
    from bridge.cluster.connection import connect
    from bridge.cluster.generations import Generations, next_generation
    from ingest.job import Job
    from ingest.runs.backfill import run_backfill
    from ingest.runs.beside import run_beside
    from ingest.runs.query_filter import sample_of_index, with_filter_threshold
    from ingest.stages.models import load_models, profile_for

    client, prefix = connect(settings.cluster), settings.companion.prefix
    standing = Generations.of(client, index, prefix)
    state, source = standing.state, indices.look(client, standing.index)
    passages = state.profile.passages if state.profile else None
    if any(ctx.get_parameter_source(option) is not ParameterSource.DEFAULT for option in _PASSAGE_OPTIONS):
        passages = enrich.passages.settings()
    models = load_models(settings.ingest)
    wanted = profile_for(models, enrich.names_in(source, state.profile), passages=passages)
    profile = next_generation(state, wanted)
    sample = partial(sample_of_index, client, index, profile.text_fields)
    profile = with_filter_threshold(profile, state.beside, models, settings.ingest, sample)
    number = profile.generation
    folder = run.folder("generation", f"{source.name}-{number}")
    job = Job(index, profile, models, client, settings.ingest, folder)
    with run.started(f"generation {number} of {index}", job) as (job, request):
        more: dict[str, object] = {"generation": number}
        if profile.beside:
            beside = run_beside(job, prefix)
            report, more = beside.report, {**more, "companion": beside.companion, "removed": beside.removed}
        else:
            done = run_backfill(job)
            report, more = done.report, {**more, "read_again": done.read_again, "left": done.left}
    lines = [str(report)]
    if report.complete:
        lines.append(f"generation {number} is filled; next: neural-bridge generation verify {index}")
    show({**report.to_json(), **more}, *lines, as_json=enrich.as_json)
    end(ctx, request, report)


@cli_command(of=command)
def verify(
    ctx: click.Context,
    *,
    index: str = INDEX,
    serving: bool = option("--serving", help="Verify the generation that serves searches instead."),
    max_missing: int = _MAX_MISSING,
    min_recall: float = _MIN_RECALL,
    judgements: Path | None = option(
        "--judgements",
        type=EXISTING_FILE,
        help="Judgement list (CSV of Quepid, JSON of the Search Relevance Workbench) to compare the vectors by.",
    ),
    sidecar_url: str | None = _SIDECAR,
    cluster_url: str | None = CLUSTER,
    as_json: bool = JSON,
) -> None:
    """Check whether the new generation may serve searches of INDEX; writes nothing.

    Every document must have its fields, made with the same models; a sample must hold its present text; and k-NN
    search must find the nearest neighbours of a sample. With judgements, k-NN search by its vectors is compared
    with that by the serving ones, for which the sidecar must run both encoders. Exit code 1 if there is a
    problem.
    """
    client, standing, _ = _standing(ctx, index, cluster_url)
    from bridge.cluster.generations import other
    from ingest.runs.verify import verify as verify_generation

    state = standing.state
    profile = state.profile if serving and state.profile else other(state)
    verification = verify_generation(client, standing, profile, max_missing=max_missing, min_recall=min_recall)
    quality = _quality(client, standing, judgements, _sidecar(ctx, sidecar_url)) if judgements else None
    show(
        {**msgspec.to_builtins(verification), "quality": msgspec.to_builtins(quality)},
        *_verification_lines(verification),
        *([_quality_line(quality)] if quality else []),
        as_json=as_json,
    )
    ctx.exit(1 if verification.problems or (quality is not None and quality.is_worse) else 0)


@cli_command(of=command)
def cutover(
    ctx: click.Context,
    *,
    index: str = INDEX,
    max_missing: int = _MAX_MISSING,
    min_recall: float = _MIN_RECALL,
    sidecar_url: str | None = _SIDECAR,
    force: bool = option("--force", help="Cut over even if the verification or the sidecar reports a problem."),
    cluster_url: str | None = CLUSTER,
    as_json: bool = JSON,
) -> None:
    """Verify the newer generation, then let searches of INDEX use it.

    This is one change of the mapping's `_meta`: each proxy follows when it next reads the profile
    (proxy.profile_ttl_s). The older generation stays: see `rollback`.
    """
    client, standing, prefix = _standing(ctx, index, cluster_url)
    from bridge.cluster.generations import newer
    from bridge.errors import IndexUnsuitable
    from ingest.runs.verify import verify as verify_generation

    profile = newer(standing.state)
    verification = verify_generation(client, standing, profile, max_missing=max_missing, min_recall=min_recall)
    problems = [*verification.problems, *_sidecar_problems(_sidecar(ctx, sidecar_url), profile)]
    if not as_json:
        say(*_verification_lines(verification))
    if problems and not force:
        raise IndexUnsuitable(
            f"generation {profile.generation} of {standing.index} was not cut over to; searches go on as they were:\n"
            + "\n".join(f"  - {problem}" for problem in problems)
            + "\nFix this, or cut over anyway with --force"
        )
    standing.serve(client, prefix, profile)
    show(
        {**msgspec.to_builtins(verification), "serving": True},
        f"generation {profile.generation} serves searches now",
        f"  the way back: neural-bridge generation rollback {index}",
        as_json=as_json,
    )


@cli_command(of=command)
def status(ctx: click.Context, *, index: str = INDEX, cluster_url: str | None = CLUSTER, as_json: bool = JSON) -> None:
    """Show the generations of INDEX, which of them serves searches, and how full each is."""
    client, standing, _ = _standing(ctx, index, cluster_url)
    from bridge.cluster import index as indices

    state = standing.state
    documents = indices.count(client, standing.index)
    lines = [f"{standing.index}: {documents:,} documents"]
    generations = []
    for profile in filter(None, (state.profile, state.beside)):
        serves = profile is state.profile
        enriched = indices.count_enriched(client, standing.holder(profile), profile)
        generator = profile.generator.identity if profile.generator else None
        sparse_encoder = profile.sparse.encoder.identity if profile.sparse else None
        image_encoder = profile.image.encoder.identity if profile.image else None
        generations.append(
            {
                "generation": profile.generation,
                "serves": serves,
                "enriched": enriched,
                "encoder": profile.encoder.identity,
                "sparse_encoder": sparse_encoder,
                "image_encoder": image_encoder,
                "generator": generator,
                "object": profile.generation_field,
                "companion": standing.holder(profile) if profile.beside else None,
            }
        )
        where = f"the companion {standing.holder(profile)}" if profile.beside else profile.generation_field
        role = "serves searches" if serves else "serves no searches"
        encoders = filter(None, (profile.encoder.identity, sparse_encoder, image_encoder))
        lines += [
            f"  generation {profile.generation} {role}: in {enriched:,} documents, under {where}",
            f"    models  {', '.join(encoders)}, {generator or 'no generator'}",
        ]
    if not generations:
        lines.append("  not enriched by the bridge")
    show({"index": standing.index, "documents": documents, "generations": generations}, *lines, as_json=as_json)


@cli_command(of=command)
def rollback(
    ctx: click.Context, *, index: str = INDEX, cluster_url: str | None = CLUSTER, as_json: bool = JSON
) -> None:
    """Let searches of INDEX use the older generation again; the newer one stays.

    This happens at once, without verification. The command reports how many documents the older generation lacks.
    """
    client, standing, prefix = _standing(ctx, index, cluster_url)
    from bridge.cluster import index as indices
    from bridge.cluster.generations import older

    profile, name = older(standing.state), standing.index
    standing.serve(client, prefix, profile)
    enriched = indices.count_enriched(client, standing.holder(profile), profile)
    missing = max(0, indices.count(client, name) - enriched)
    lines = [f"generation {profile.generation} ({profile.encoder.identity}) serves searches of {name} again"]
    if missing:
        lines.append(f"  {missing:,} documents lack its fields, so only their text is searched")
        lines.append(f"  enrich them: neural-bridge backfill {index}")
    show({"index": name, "generation": profile.generation, "missing": missing}, *lines, as_json=as_json)


@cli_command(of=command)
def drop(
    ctx: click.Context, *, index: str = INDEX, yes: bool = YES, cluster_url: str | None = CLUSTER, as_json: bool = JSON
) -> None:
    """Remove the generation that serves no searches from every document of INDEX.

    This cannot be undone. Its fields stay in the mapping, empty, because no field can be removed from a mapping.
    """
    client, standing, prefix = _standing(ctx, index, cluster_url)
    from bridge.cluster.generations import other

    beside = other(standing.state)
    if not yes:
        what = f"generation {beside.generation} ({beside.encoder.identity})"
        confirm(f"Remove {what} from {standing.holder(beside)}?")
    documents, mapped_fields = standing.drop(client, prefix, beside)
    show(
        {"generation": beside.generation, "documents": documents, "mapped_fields": mapped_fields},
        f"{index}: generation {beside.generation} is out of {documents:,} documents",
        *([f"  still in the mapping, empty: {', '.join(mapped_fields)}"] if mapped_fields else []),
        as_json=as_json,
    )


def _standing(ctx: click.Context, index: str, cluster_url: str | None) -> "tuple[OpenSearch, Generations, str]":
    """A client, the generations of an index, and the prefix of companions."""
    client, settings = connected(ctx, cluster_url)
    from bridge.cluster.generations import Generations

    prefix = settings.companion.prefix
    return client, Generations.of(client, index, prefix), prefix


_Sidecar = tuple[str, str | None]
"""Its address, and its API key."""


def _sidecar(ctx: click.Context, url: str | None) -> _Sidecar:
    settings = settings_of(ctx)
    key = settings.sidecar.api_key
    return url or settings.proxy.sidecar_url, key.get_secret_value() if key else None


def _sidecar_problems(sidecar: _Sidecar, profile: "IndexProfile") -> list[str]:
    """Why searches would have no vectors after the cutover."""
    from bridge.errors import SidecarError
    from bridge.model_servers.client import ModelServer
    from bridge.settings import masked

    url, key = sidecar
    try:
        encoders = ModelServer(url, api_key=key, timeout_s=_SIDECAR_TIMEOUT_S).info().embedding_model_ids
    except SidecarError as error:
        return [f"{error}, or name another one with --sidecar"]
    if profile.encoder.identity in encoders:
        return []
    return [
        f"the sidecar at {masked(url)} runs {', '.join(encoders)}, not {profile.encoder.identity}: name both "
        f"in its settings (sidecar.more_encoders), or searches have no vectors until it runs the new one"
    ]


def _quality(client: "OpenSearch", standing: "Generations", judgements: Path, sidecar: _Sidecar) -> "GenerationQuality":
    from bridge.cluster.generations import other

    with needs_extra("--judgements", "evaluate"):
        from bridge.evaluation.generation_quality import compare_generations
        from bridge.evaluation.judgement_files import read_judgement_list
        from bridge.model_servers.client import SidecarClient
    beside = other(standing.state)
    serving = standing.state.profile or beside
    url, key = sidecar
    with SidecarClient(url, api_key=key) as client_of_sidecar:
        return compare_generations(
            client,
            read_judgement_list(judgements),
            serving=(standing.holder(serving), serving),
            other=(standing.holder(beside), beside),
            embed=lambda text, encoder: client_of_sidecar.embed(text, model=encoder),
        )


def _quality_line(quality: "GenerationQuality") -> str:
    verdict = "worse" if quality.is_worse else "better" if quality.low > 0 else "no clear difference"
    return (
        f"  {quality.measure} of k-NN search alone over {quality.queries:,} queries ({quality.judgements}): "
        f"{quality.other_mean:.3f}, the serving one {quality.serving_mean:.3f}; difference {quality.difference:+.3f} "
        f"[{quality.low:+.3f}, {quality.high:+.3f}], p {quality.p_value:.3f}: {verdict}"
    )


def _verification_lines(verification: "Verification") -> list[str]:
    recall = (
        f"{verification.recall:.1%}" if verification.recall is not None else "not measured, no document has a vector"
    )
    return [
        f"{verification.index}, generation {verification.generation} by {verification.encoder}:",
        f"  {verification.enriched:,} of {verification.documents:,} documents have it, "
        f"{verification.made_alike:,} by the same models",
        f"  of {verification.sampled:,} sampled documents {verification.outdated:,} hold an older text",
        f"  k-NN search finds the nearest neighbours of {verification.compared:,} documents: {recall}",
        *(f"  problem: {problem}" for problem in verification.problems or ()),
        *([] if verification.problems else ["  it may serve searches"]),
    ]
