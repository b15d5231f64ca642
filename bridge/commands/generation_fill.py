"""`neural-bridge generation fill`: new vectors beside those that serve searches."""

import json
from pathlib import Path

import click
from click.core import ParameterSource

from bridge.commands import settings_of
from bridge.commands.index import cluster_option, json_option, passage_options, passage_settings


@click.command(name="fill")
@click.argument("index")
@click.option("--encoder", help="Encoder of the new vectors: path or built-in.")
@click.option("--generator", help="Generator of the new predicted queries: path or built-in.")
@click.option("--no-expansion", is_flag=True, help="Write no predicted queries.")
@click.option("--text-field", "text_fields", multiple=True, help="Field to enrich; those of the first by default.")
@passage_options
@click.option("--threads", type=click.IntRange(min=0), help="Compute threads; 0 takes all that may be used.")
@click.option(
    "--state-folder",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where dead letters are kept; one folder per index and generation by default.",
)
@cluster_option
@json_option
@click.option("--quiet", is_flag=True, help="Show no progress.")
@click.pass_context
def command(
    ctx: click.Context,
    index: str,
    encoder: str | None,
    generator: str | None,
    no_expansion: bool,
    text_fields: tuple[str, ...],
    layout: str,
    max_tokens: int | None,
    overlap_tokens: int | None,
    threads: int | None,
    state_folder: Path | None,
    cluster_url: str | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Fill a second generation beside the one that serves searches of INDEX.

    Begins one where none stands there, and goes on with it where it does: a run that was stopped is simply
    run again. The index needs room for both. Exit codes as of `neural-bridge backfill`.
    """
    settings = settings_of(
        ctx,
        cluster={"url": cluster_url},
        ingest={"encoder": encoder, "generator": "" if no_expansion else generator, "threads": threads},
    )
    from bridge.cluster import index as indices
    from bridge.cluster.connection import connect
    from bridge.cluster.generations import next_generation
    from ingest.backfill import run_backfill
    from ingest.display import shown
    from ingest.models import load_models, profile_for
    from ingest.signals import stop_on_signals
    from ingest.state import default_state_folder

    client = connect(settings.cluster)
    state = indices.look(client, index)
    names = text_fields or tuple(field.name for field in state.profile.text_fields) if state.profile else text_fields
    sources = [ctx.get_parameter_source(option) for option in ("layout", "max_tokens", "overlap_tokens")]
    passages = state.profile.passages if state.profile else None
    if any(source is not ParameterSource.DEFAULT for source in sources):
        passages = passage_settings(layout, max_tokens, overlap_tokens)
    models = load_models(settings.ingest)
    profile = next_generation(state, profile_for(models, names, passages=passages))
    number = profile.generation
    with stop_on_signals() as request, shown(f"generation {number} of {index}", quiet=quiet) as on_progress:
        done = run_backfill(
            index,
            profile=profile,
            models=models,
            client=client,
            settings=settings.ingest,
            state_folder=state_folder or default_state_folder("generation", f"{state.name}-{number}"),
            on_progress=on_progress,
            stopped=request.stopped,
        )
    report = done.report
    if as_json:
        more = {"generation": number, "read_again": done.read_again, "left": done.left}
        click.echo(json.dumps({**report.to_json(), **more}, indent=2))
    else:
        click.echo(str(report))
    if request.number is not None and not report.complete:
        click.echo("stopped; go on with the same command", err=True)
        ctx.exit(request.exit_code)
    if not as_json:
        click.echo(f"generation {number} stands beside; look at it with: neural-bridge generation verify {index}")
    ctx.exit(report.exit_code)
