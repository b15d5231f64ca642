"""`neural-bridge generation fill`: new vectors beside those that serve searches."""

import json
from functools import partial

import click
from click.core import ParameterSource

from bridge.commands.index import passage_settings
from bridge.commands.options.enrich import Making, Running, end, making_options, running_options

_PASSAGE_OPTIONS = ("layout", "max_tokens", "overlap_tokens")


@click.command(name="fill")
@click.argument("index")
@making_options
@running_options
@click.pass_context
def command(ctx: click.Context, index: str, making: Making, running: Running) -> None:
    """Fill a second generation beside the one that serves searches of INDEX.

    Begins one where none stands there, and goes on with it where it does: a run that was stopped is simply
    run again. Text fields and passages are those of the first unless options say otherwise. The index needs
    room for both. Exit codes as of `neural-bridge backfill`.
    """
    settings = making.settings(ctx, **running.limits())
    from bridge.cluster import index as indices
    from bridge.cluster.connection import connect
    from bridge.cluster.generations import next_generation
    from ingest.display import shown
    from ingest.job import Job
    from ingest.runs.backfill import run_backfill
    from ingest.runs.query_filter import sample_of_index, with_filter_threshold
    from ingest.signals import stop_on_signals
    from ingest.stages.models import load_models, profile_for

    client = connect(settings.cluster)
    state = indices.look(client, index)
    passages = state.profile.passages if state.profile else None
    if any(ctx.get_parameter_source(option) is not ParameterSource.DEFAULT for option in _PASSAGE_OPTIONS):
        passages = passage_settings(making.layout, making.max_tokens, making.overlap_tokens)
    models = load_models(settings.ingest)
    wanted = profile_for(models, making.names(index, state.profile), passages=passages)
    profile = next_generation(state, wanted)
    sample = partial(sample_of_index, client, index, profile.text_fields)
    profile = with_filter_threshold(profile, state.beside, models, settings.ingest, sample)
    number = profile.generation
    with stop_on_signals() as request, shown(f"generation {number} of {index}", quiet=running.quiet) as on_progress:
        done = run_backfill(
            Job(
                index,
                profile=profile,
                models=models,
                client=client,
                settings=settings.ingest,
                state_folder=running.folder("generation", f"{state.name}-{number}"),
                on_progress=on_progress,
                stopped=request.stopped,
            ),
        )
    if making.as_json:
        more = {"generation": number, "read_again": done.read_again, "left": done.left}
        click.echo(json.dumps({**done.report.to_json(), **more}, indent=2))
    else:
        click.echo(str(done.report))
        if done.report.complete:
            click.echo(f"generation {number} stands beside; next: neural-bridge generation verify {index}")
    end(ctx, request, done.report)
