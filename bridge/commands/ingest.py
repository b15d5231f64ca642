"""`neural-bridge ingest`: documents from files into an index, enriched."""

import json
import shlex
import sys
from pathlib import Path

import click

from bridge.commands import settings_of
from bridge.commands.index import cluster_option, json_option, passage_options, passage_settings


@click.command(name="ingest")
@click.argument("index")
@click.argument("sources", nargs=-1, required=True)
@click.option("--text-field", "text_fields", multiple=True, help="Field to enrich, in reading order; repeat it.")
@click.option("--id-field", default="_id", show_default=True, help="Field that holds the document's id.")
@click.option("--routing-field", help="Field that holds the document's routing.")
@click.option("--analyzer", default="english", show_default=True, help="Analyser of the text fields of a new index.")
@passage_options
@cluster_option
@click.option("--encoder", help="Encoder of the vectors: path or built-in.")
@click.option("--generator", help="Generator of predicted queries: path or built-in.")
@click.option("--no-expansion", is_flag=True, help="Write no predicted queries.")
@click.option("--queries", "queries_per_passage", type=click.IntRange(min=1), help="Queries predicted per passage.")
@click.option("--threads", type=click.IntRange(min=0), help="Compute threads; 0 takes all that may be used.")
@click.option("--max-errors", type=click.IntRange(min=0), help="Dead letters after which the run stops.")
@click.option(
    "--max-expanded-bytes",
    type=click.IntRange(min=1),
    default=100_000_000_000,
    show_default=True,
    help="Most bytes that a compressed file may hold.",
)
@click.option(
    "--state-folder",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where checkpoint and dead letters are kept; one folder per index by default.",
)
@click.option("--from-start", is_flag=True, help="Disregard the checkpoint of a run that was cut off.")
@click.option("--strict", is_flag=True, help="Stop at the first document that cannot be written (exit code 3).")
@json_option
@click.option("--quiet", is_flag=True, help="Show no progress.")
@click.pass_context
def command(
    ctx: click.Context,
    index: str,
    sources: tuple[str, ...],
    text_fields: tuple[str, ...],
    id_field: str,
    routing_field: str | None,
    analyzer: str,
    layout: str,
    max_tokens: int | None,
    overlap_tokens: int | None,
    cluster_url: str | None,
    encoder: str | None,
    generator: str | None,
    no_expansion: bool,
    queries_per_passage: int | None,
    threads: int | None,
    max_errors: int | None,
    max_expanded_bytes: int,
    state_folder: Path | None,
    from_start: bool,
    strict: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Enrich documents and write them to INDEX, which is made where it does not exist.

    SOURCES are files with one JSON object per line (plain or gzip), globs, or `-` for standard input.
    Documents that the index holds just so are left alone, so a second run costs little; a run that was
    stopped goes on where it was.

    Exit codes: 0 every document is in the index; 3 some are dead letters or were dropped by a pipeline of
    the cluster; 1 unexpected; 2 usage; 4 no connection or no permission; 5 the cluster takes no documents;
    130 and 143 stopped by a signal.
    """
    settings = settings_of(
        ctx,
        cluster={"url": cluster_url},
        ingest={
            "encoder": encoder,
            "generator": "" if no_expansion else generator,
            "queries_per_passage": queries_per_passage,
            "threads": threads,
            "max_errors": max_errors,
        },
    )
    # Models and clients take a while to import, which `--help` has no use for.
    from bridge.cluster import index as indices
    from bridge.cluster.connection import connect
    from bridge.errors import UsageError
    from ingest.display import shown
    from ingest.field_choice import FieldChoice
    from ingest.file_source import FileDocuments
    from ingest.models import load_models, profile_for
    from ingest.pipeline import run_ingest
    from ingest.signals import stop_on_signals
    from ingest.state import default_state_folder

    client = connect(settings.cluster)
    existing = indices.find(client, index)
    kept = existing.profile if existing else None
    names = text_fields or tuple(field.name for field in kept.text_fields) if kept else text_fields
    if not names:
        raise UsageError(f"which fields of {index} hold text is not known: name them with --text-field")
    source = FileDocuments(
        sources,
        FieldChoice(names, id_field, routing_field),
        max_doc_bytes=settings.ingest.max_doc_bytes,
        max_expanded_bytes=max_expanded_bytes,
    )
    models = load_models(settings.ingest)
    passages = kept.passages if kept else passage_settings(layout, max_tokens, overlap_tokens)
    profile = profile_for(models, names, passages=passages, kept=kept)
    if existing is None:
        indices.create(client, index, profile, analyzer=analyzer)
        click.echo(f"index {index} is new: made for {', '.join(names)}", err=True)
    with stop_on_signals() as request, shown(f"ingest {index}", quiet=quiet) as on_progress:
        report = run_ingest(
            source,
            index=index,
            profile=profile,
            models=models,
            client=client,
            settings=settings.ingest,
            state_folder=state_folder or default_state_folder("ingest", index),
            on_progress=on_progress,
            stopped=request.stopped,
            from_start=from_start,
            strict=strict,
        )
    click.echo(json.dumps(report.to_json(), indent=2) if as_json else str(report))
    if request.number is not None and not report.complete:
        click.echo(f"stopped; go on with: neural-bridge {shlex.join(sys.argv[1:])}", err=True)
        ctx.exit(request.exit_code)
    ctx.exit(report.exit_code)
