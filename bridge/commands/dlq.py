"""`neural-bridge dlq`: inspect dead letters, and write them again."""

from itertools import islice
from pathlib import Path

import click

from bridge.commands import CLUSTER, JSON, look_at, settings_of
from bridge.commands import show as show_result
from bridge.commands.options.signature import EXISTING_FILE, argument, cli_command, option
from bridge.errors import UsageError

_FILE = argument(type=EXISTING_FILE)


@click.group(name="dlq")
def command() -> None:
    """Inspect dead letters, and write them again once their cause is fixed."""


@cli_command(of=command)
def show(
    *,
    file: Path = _FILE,
    limit: int = option("--limit", type=click.IntRange(min=0), default=20, help="Number of letters to list."),
    as_json: bool = JSON,
) -> None:
    """Count the letters of FILE by cause and list the first ones; prints no document text."""
    from ingest.books.state_folder import read_dead_letters
    from ingest.sources.replay import causes

    counted = causes(file)
    letters = list(islice(read_dead_letters(file), limit))
    listed = [{"id": letter.id, "position": letter.position, **letter.error} for letter in letters]
    show_result(
        {"letters": counted.total(), "causes": counted, "first": listed},
        *(f"{n:>8,}  {cause}" for cause, n in counted.most_common()),
        *(f"{each.position}  {each.id or '(no id)'}  {each.error['type']}: {each.error['reason']}" for each in letters),
        as_json=as_json,
    )


@cli_command(of=command)
def replay(
    ctx: click.Context,
    *,
    file: Path = _FILE,
    id_field: str = option("--id-field", default="_id", help="Id field of lines that could not be read as documents."),
    cluster_url: str | None = CLUSTER,
    as_json: bool = JSON,
) -> None:
    """Enrich and write the documents of FILE again, into their index.

    When all of them are written, FILE is renamed to FILE.replayed. A document that fails again is written to a
    new file of dead letters. Replaying a letter twice changes nothing.
    """
    settings = settings_of(ctx, cluster={"url": cluster_url})
    from ingest.books.state_folder import read_dead_letters
    from ingest.job import Job
    from ingest.runs.ingest import run_ingest
    from ingest.sources.documents import FieldChoice
    from ingest.sources.replay import DeadLetterDocuments, mark_replayed
    from ingest.stages.models import load_models, profile_like

    names = {letter.index for letter in read_dead_letters(file)}
    if len(names) != 1:
        raise UsageError(f"{file} holds letters of {len(names)} indices, expected one")
    client, state = look_at(ctx, names.pop(), cluster_url)
    if state.profile is not None and (beside := state.profile.beside) is not None:
        raise UsageError(
            f"{file} comes from enriching {beside} beside itself, which needs no letters: run `neural-bridge backfill "
            f"{beside}` again instead, which reads these documents anew"
        )
    kept = state.profile
    fields = (
        FieldChoice(kept.text_fields, id_field, image_field=kept.image_field) if kept else FieldChoice((), id_field)
    )
    documents = DeadLetterDocuments(file, fields)
    if state.profile is None:
        raise UsageError(f"index {state.name} is not enriched: there is no profile to write {file} for")
    models = load_models(settings.ingest)
    report = run_ingest(
        documents,
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
    show_result(report.to_json(), f"{state.name}: {report.ledger}", as_json=as_json)
    ctx.exit(report.exit_code)
