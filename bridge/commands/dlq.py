"""`neural-bridge dlq`: what could not be written, why, and trying it again."""

import json
from itertools import islice
from pathlib import Path

import click

from bridge.commands import settings_of
from bridge.commands.index import cluster_option, json_option

file_argument = click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))

_SHOWN = 20


@click.group(name="dlq")
def command() -> None:
    """Look at dead letters, and write them again once their cause is gone."""


@command.command()
@file_argument
@click.option("--limit", type=click.IntRange(min=0), default=_SHOWN, show_default=True, help="Letters to list.")
@json_option
def show(file: Path, limit: int, as_json: bool) -> None:
    """Count the letters of FILE by cause and list the first ones; document text is not shown."""
    from ingest.books.dead_letters import read_dead_letters
    from ingest.sources.replay import causes

    counted = causes(file)
    letters = list(islice(read_dead_letters(file), limit))
    if as_json:
        listed = [{"id": letter.id, "position": letter.position, **letter.error} for letter in letters]
        click.echo(json.dumps({"letters": counted.total(), "causes": counted, "first": listed}, indent=2))
        return
    for cause, n in counted.most_common():
        click.echo(f"{n:>8,}  {cause}")
    for letter in letters:
        click.echo(f"{letter.position}  {letter.id or '(no id)'}  {letter.error['type']}: {letter.error['reason']}")


@command.command()
@file_argument
@click.option("--id-field", default="_id", show_default=True, help="Id field of lines that were no documents.")
@cluster_option
@json_option
@click.pass_context
def replay(ctx: click.Context, file: Path, id_field: str, cluster_url: str | None, as_json: bool) -> None:
    """Enrich and write the documents of FILE again, into the index that they were meant for.

    Once all are written FILE is renamed to FILE.replayed. What fails again is a dead letter again, in a
    file of its own; replaying a letter twice changes nothing.
    """
    settings = settings_of(ctx, cluster={"url": cluster_url})
    from bridge.cluster import index as indices
    from bridge.cluster.connection import connect
    from bridge.errors import UsageError
    from ingest.books.dead_letters import read_dead_letters
    from ingest.job import Job
    from ingest.runs.ingest import run_ingest
    from ingest.sources.field_choice import FieldChoice
    from ingest.sources.replay import DeadLetterDocuments, mark_replayed
    from ingest.stages.models import load_models, profile_like

    names = {letter.index for letter in read_dead_letters(file)}
    if len(names) != 1:
        raise UsageError(f"{file} speaks of {len(names)} indices: expected the letters of one")
    client = connect(settings.cluster)
    state = indices.look(client, names.pop())
    if state.profile is None:
        raise UsageError(f"index {state.name} is not enriched: there is no profile to write {file} for")
    fields = FieldChoice(state.profile.text_fields, id_field)
    models = load_models(settings.ingest)
    report = run_ingest(
        DeadLetterDocuments(file, fields),
        Job(
            index=state.name,
            profile=profile_like(state.profile, models),
            models=models,
            client=client,
            settings=settings.ingest,
            state_folder=file.parent / "replay",
        ),
    )
    if report.complete and not report.ledger.dead_lettered:
        mark_replayed(file)
    click.echo(json.dumps(report.to_json(), indent=2) if as_json else f"{state.name}: {report.ledger}")
    ctx.exit(report.exit_code)
