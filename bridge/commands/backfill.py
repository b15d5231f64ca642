"""`neural-bridge backfill`: enriches an index that an application wrote, in place."""

import json
from pathlib import Path

import click

from bridge.commands import settings_of
from bridge.commands.index import cluster_option, json_option, passage_options, passage_settings


@click.command(name="backfill")
@click.argument("index")
@click.option("--text-field", "text_fields", multiple=True, help="Field to enrich, in reading order; repeat it.")
@passage_options
@cluster_option
@click.option("--no-expansion", is_flag=True, help="Write no predicted queries.")
@click.option("--threads", type=click.IntRange(min=0), help="Compute threads; 0 takes all that may be used.")
@click.option(
    "--state-folder",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where dead letters are kept; one folder per index by default.",
)
@json_option
@click.option("--quiet", is_flag=True, help="Show no progress.")
@click.pass_context
def command(
    ctx: click.Context,
    index: str,
    text_fields: tuple[str, ...],
    layout: str,
    max_tokens: int | None,
    overlap_tokens: int | None,
    cluster_url: str | None,
    no_expansion: bool,
    threads: int | None,
    state_folder: Path | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Enrich the documents of INDEX where they are, while its application goes on writing.

    Only our own object is set. A document that changes meanwhile is read again; one that is deleted stays
    deleted. A run that was stopped is simply run again. Exit codes as of `neural-bridge ingest`.
    """
    settings = settings_of(
        ctx, cluster={"url": cluster_url}, ingest={"generator": "" if no_expansion else None, "threads": threads}
    )
    from bridge.cluster import index as indices
    from bridge.cluster.connection import connect
    from bridge.errors import UsageError
    from ingest.backfill import run_backfill
    from ingest.display import shown
    from ingest.models import load_models, profile_for
    from ingest.signals import stop_on_signals
    from ingest.state import default_state_folder

    client = connect(settings.cluster)
    kept = indices.look(client, index).profile
    names = text_fields or tuple(field.name for field in kept.text_fields) if kept else text_fields
    if not names:
        raise UsageError(f"which fields of {index} hold text is not known: name them with --text-field")
    models = load_models(settings.ingest)
    passages = kept.passages if kept else passage_settings(layout, max_tokens, overlap_tokens)
    with stop_on_signals() as request, shown(f"backfill {index}", quiet=quiet) as on_progress:
        done = run_backfill(
            index,
            profile=profile_for(models, names, passages=passages, kept=kept),
            models=models,
            client=client,
            settings=settings.ingest,
            state_folder=state_folder or default_state_folder("backfill", index),
            on_progress=on_progress,
            stopped=request.stopped,
        )
    report = done.report
    if as_json:
        click.echo(json.dumps({**report.to_json(), "read_again": done.read_again, "left": done.left}, indent=2))
    else:
        click.echo(str(report))
        if done.read_again:
            click.echo(f"  {done.read_again:,} were changed meanwhile and read again, {done.left:,} kept changing")
    if request.number is not None and not report.complete:
        click.echo(f"stopped; go on with: neural-bridge backfill {index}", err=True)
        ctx.exit(request.exit_code)
    ctx.exit(report.exit_code)
