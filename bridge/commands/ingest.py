"""`neural-bridge ingest`: documents from files, rows or facts into an index, enriched."""

import difflib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from bridge.commands import INDEX, say, show
from bridge.commands.options.enrich import EnrichOptions, RunOptions, check_names, end
from bridge.commands.options.ray import RayOptions
from bridge.commands.options.signature import EXISTING_FILE, argument, cli_command, option
from bridge.commands.options.sources import FactOptions, RowOptions

if TYPE_CHECKING:
    from bridge.cluster.index import IndexState
    from ingest.runs.dry_run import DryRun
    from ingest.sources.documents import FieldChoice
    from ingest.sources.files import Format
    from ingest.sources.source import Source, SourceItem

_CHECKED = 1000
"""Documents that are looked at for their fields before the run."""

_FORMATS = ["auto", "json", "bulk", "hits", "csv", "tsv", "parquet"]


@dataclass(frozen=True, slots=True)
class _FieldOptions:
    """Which field of a source is what."""

    fields_file: Path | None = option(
        "--fields",
        type=EXISTING_FILE,
        help="YAML file that says all of this: text_fields, id_field, routing_field, rename, drop, numbers.",
    )
    id_field: str | None = option("--id-field", help="Field that holds the document's id. Defaults to `_id`.")
    routing_field: str | None = option("--routing-field", help="Field that holds the document's routing.")
    rename: tuple[str, ...] = option(
        "--rename", multiple=True, metavar="OLD=NEW", help="Field that has another name in the index; repeat it."
    )
    drop: tuple[str, ...] = option("--drop", multiple=True, help="Field that the index does not get; repeat it.")
    numbers: tuple[str, ...] = option(
        "--number", multiple=True, help="Column of CSV or TSV that holds numbers; repeat it."
    )

    def choice(self) -> "FieldChoice":
        """What the file says, and over it what the options say."""
        from bridge.errors import UsageError
        from ingest.sources.documents import FieldChoice, read_field_choice

        pairs = [pair.partition("=") for pair in self.rename]
        for old, _, new in pairs:
            if not old or not new:
                raise UsageError(f"--rename {old}: expected OLD=NEW")
        given: dict[str, Any] = {
            "id_field": self.id_field,
            "routing_field": self.routing_field,
            "rename": {old: new for old, _, new in pairs},
            "drop": self.drop,
            "numbers": self.numbers,
        }
        choice = read_field_choice(self.fields_file) if self.fields_file else FieldChoice()
        return msgspec.structs.replace(choice, **{name: value for name, value in given.items() if value})


@cli_command("ingest")
def command(
    ctx: click.Context,
    *,
    index: str = INDEX,
    sources: tuple[str, ...] = argument(nargs=-1),
    enrich: EnrichOptions,
    field_options: _FieldOptions,
    rows: RowOptions,
    facts: FactOptions,
    file_format: "Format" = option(
        "--format",
        type=click.Choice(_FORMATS),
        default="auto",
        help="What the files hold: csv, tsv and parquet are known by their names, bulk bodies by their first line; "
        "hits are search hits as elasticdump writes them.",
    ),
    analyzer: str = option("--analyzer", default="english", help="Analyser of the text fields of a new index."),
    on_duplicate: str | None = option(
        "--on-duplicate",
        type=click.Choice(["last", "error"]),
        help="If an id comes twice: the last document wins (default), or the second is a dead letter "
        "(default of --sql).",
    ),
    max_expanded_bytes: int = option(
        "--max-expanded-bytes",
        type=click.IntRange(min=1),
        default=100_000_000_000,
        help="Limit of bytes in a compressed file, uncompressed.",
    ),
    run: RunOptions,
    ray: RayOptions,
    from_start: bool = option("--from-start", help="Ignore the checkpoint of an interrupted run."),
    strict: bool = option("--strict", help="Stop at the first document that cannot be written (exit code 3)."),
    dry_run: bool = option("--dry-run", help="Read everything, print what would happen, and write nothing."),
) -> None:
    """Enrich documents and write them to INDEX, which is made if it does not exist.

    SOURCES are files, globs, URLs (s3://, gs://, abfss://; extra: parquet) or `-` for standard input, plain or
    compressed by gzip or zstd: JSON lines, one array of objects, bulk bodies, CSV, TSV, Parquet. In place of
    SOURCES, --sql reads the rows of a database and --triples facts about things. Documents that the index already
    holds, unchanged, are left alone, so a second run costs little; a run that was stopped goes on from its
    checkpoint, one of rows from the last value of --watermark.

    Exit codes: 0 every document is in the index; 3 some are dead letters or were dropped by a pipeline of
    the cluster; 1 unexpected; 2 usage; 4 no connection or no permission; 5 the cluster takes no documents;
    129, 130 and 143 stopped by a signal.
    """
    _check_sources(sources, rows, facts, runner=ray.runner)
    # Rows come in no order of their own: which of two is the last says nothing.
    unordered = "error" if rows.sql else None
    settings = enrich.settings(ctx, on_duplicate=on_duplicate or unordered, **run.limits())
    # Models and clients take a while to import, which `--help` has no use for.
    from bridge.cluster import companion
    from bridge.cluster import index as indices
    from bridge.cluster.connection import connect
    from ingest.books.state_folder import locked
    from ingest.job import Job
    from ingest.runs.dry_run import dry_run_of
    from ingest.runs.ingest import run_ingest
    from ingest.runs.query_filter import sample_of_files
    from ingest.sources.documents import FieldChoice
    from ingest.sources.facts import TEXT_FIELDS
    from ingest.sources.files import PART_BYTES, FileDocuments
    from ingest.stages.models import load_models

    executor = ray.executor(ctx, settings)
    client = connect(settings.cluster)
    existing = indices.find(client, index)
    if existing is not None:
        companion.refuse_ingest(client, existing, settings.companion.prefix)
    kept = existing.profile if existing else None
    choice = field_options.choice()
    names = enrich.text_fields or tuple(choice.text_fields) or tuple(kept.text_fields if kept else ())
    image_field = settings.ingest.image_field or choice.image_field or (kept.image_field if kept else None)
    choice = msgspec.structs.replace(choice, image_field=image_field)
    max_doc_bytes = settings.ingest.max_doc_bytes
    files = partial(
        FileDocuments,
        sources,
        max_doc_bytes=max_doc_bytes,
        max_expanded_bytes=max_expanded_bytes,
        file_format=file_format,
    )
    remove_gone = None
    source: Source[Any]
    if rows.sql:
        source = row_source = rows.source(choice, names, max_doc_bytes=max_doc_bytes)
        names, sample, remove_gone = row_source.text_fields, source.items, rows.removal(row_source)
    elif facts.triples:
        names = names or TEXT_FIELDS
        fields = msgspec.structs.replace(choice, text_fields=names)
        source = facts.source(fields, max_doc_bytes=max_doc_bytes, max_expanded_bytes=max_expanded_bytes)
        sample = source.items
    else:
        names = names or enrich.names(index, kept)
        source = files(msgspec.structs.replace(choice, text_fields=names))
        sample = partial(sample_of_files, source)
        if source.resumable:
            _check_names(names, islice(source.items(), _CHECKED), existing)
            _check_choice(choice, list(islice(files(FieldChoice()).items(), _CHECKED)))
    models = load_models(ray.local_settings(settings.ingest))
    profile = enrich.profile(models, names, kept, settings.ingest, sample)
    folder = run.folder("ingest", index)
    job = Job(index, profile, models, client, settings.ingest, folder, from_start=from_start, strict=strict)
    if dry_run:
        found = dry_run_of(source, job, analyzer=analyzer)
        show(msgspec.to_builtins(found), *_lines(found), as_json=enrich.as_json)
        return
    if existing is None:
        with locked(folder):  # a folder that cannot be written leaves no index behind
            is_new = indices.create_unless_there(client, index, profile, analyzer=analyzer)
        if is_new:
            say(f"index {index} is new: made for {', '.join(names)}", err=True)
    if ray.runner == "ray":
        source = files(msgspec.structs.replace(choice, text_fields=names), part_bytes=PART_BYTES)
    with run.started(f"ingest {index}", job) as (job, request):
        report = run_ingest(source, job, executor, remove_gone=remove_gone)
    show(report.to_json(), str(report), as_json=enrich.as_json)
    end(ctx, request, report)


def _check_sources(sources: Sequence[str], rows: RowOptions, facts: FactOptions, *, runner: str) -> None:
    """Checks that one kind of source is named, and that the runner can read it.

    Raises:
        UsageError: it is not.
    """
    from bridge.errors import UsageError

    rows.check()
    named = [kind for kind, value in (("files", sources), ("--sql", rows.sql), ("--triples", facts.triples)) if value]
    if len(named) != 1:
        problem = f"{' and '.join(named)} are named" if named else "nothing to read is named"
        raise UsageError(f"{problem}: expected SOURCES (files, or - for standard input), --sql QUERY or --triples FILE")
    if facts.languages and not facts.triples:
        raise UsageError("--language needs --triples FILE")
    if runner == "ray" and not sources:
        raise UsageError(f"{named[0]} is read by one process: leave out --runner ray")


def _check_names(names: Sequence[str], items: "Iterable[SourceItem]", state: "IndexState | None") -> None:
    """Checks that the mapping of an index, or some of these documents, have the text fields.

    Raises:
        UsageError: they have none of the fields, or lack one whose name is almost that of another.
    """
    from bridge.cluster.schema import leaves
    from bridge.records import Document
    from ingest.sources.json_bytes import parse_object

    known = set(leaves(state.mapping)) if state else set()
    documents = [item for item in items if isinstance(item, Document)]
    for document in documents:
        known.update(_names_in(parse_object(document.body)))
    missing = [name for name in names if name not in known]
    almost = [name for name in missing if difflib.get_close_matches(name, known)]
    if documents and (almost or len(missing) == len(names)):
        check_names(almost or missing, known, owner=f"the source, in its first {len(documents):,} documents,")


def _check_choice(choice: "FieldChoice", items: "Sequence[SourceItem]") -> None:
    """Checks that some of these items, read as they are in the source, have the fields that the options name; warns of
    fields to rename or to drop, which only some documents may have.

    Raises:
        UsageError: none has the field of ids or of routing, nor an id or routing beside the document.
    """
    from bridge.errors import UsageError
    from bridge.records import Document
    from ingest.sources.documents import METADATA_ID
    from ingest.sources.json_bytes import JsonProblem, parse_object

    known = {METADATA_ID}
    for item in items:
        with suppress(JsonProblem):
            known.update(_names_in(parse_object(item.body if isinstance(item, Document) else item.raw)))
    owner = f"the source, in its first {len(items):,} documents,"
    if len(known) > 1:
        if not any(item.doc_id for item in items):
            check_names([choice.id_field], known, owner=owner)
        if choice.routing_field and not any(isinstance(item, Document) and item.routing for item in items):
            check_names([choice.routing_field], known, owner=owner)
        for name in (*choice.rename, *choice.drop):
            try:
                check_names([name], known, owner=owner)
            except UsageError as unknown:
                say(f"warning: {unknown}", err=True)


def _names_in(values: "Mapping[str, Any]", prefix: str = "") -> Iterator[str]:
    for key, value in values.items():
        yield f"{prefix}{key}"
        for inner in value if isinstance(value, list) else [value]:
            if isinstance(inner, dict):
                yield from _names_in(inner, f"{prefix}{key}.")


def _lines(found: "DryRun") -> list[str]:
    lines = [
        f"{found.index}: {found.read:,} items read; nothing is written",
        f"  would write {found.to_write:,} documents, {found.without_text:,} of them without text; {found.unchanged:,} "
        f"are unchanged, {found.superseded:,} superseded",
        *(f"  dead letters: {n:,} {cause}" for cause, n in found.dead_letters.items()),
        *(f"    {example}" for example in found.examples),
        f"  time: {found.hours * 60:.1f} minutes at {found.documents_per_s:.1f} documents/s (measured on "
        f"{found.measured:,})",
        *(f"  cannot be written: {obstacle}" for obstacle in found.obstacles),
    ]
    if found.mapping:
        lines.append(f"  mapping: {'add' if found.exists else 'new index with'} {json.dumps(found.mapping)}")
    return lines
