"""`scripts/bench plan FILE`: how well `neural-bridge plan` foresees how long a backfill takes.

An application that never heard of the bridge writes the documents of FILE (JSON lines with `_id`) into a fresh index.
Then it is planned on a sample, and backfilled whole, with the models of the settings.
"""

import json as json_module
import resource
import tempfile
import time
from itertools import islice
from pathlib import Path

import click
import msgspec
from opensearchpy import OpenSearch

from benchmarks.documents import cluster_at
from bridge.cluster import index as indices
from bridge.cluster.connection import connect
from bridge.errors import IngestError
from bridge.models.session import compute_threads
from bridge.settings import ClusterSettings, IngestSettings, load_settings
from ingest.job import Job
from ingest.runs.backfill import run_backfill
from ingest.runs.plan import plan
from ingest.runs.way import Way
from ingest.stages.models import load_models, profile_for

INDEX = "bench-plan"
_BULK_DOCUMENTS = 500
"""Of the application's own requests."""


class Figures(msgspec.Struct, frozen=True):
    """What was foreseen on `sampled` documents and what came, in seconds; `of_forecast` is the real time over it."""

    documents: int
    sampled: int
    forecast_s: float
    real_s: float
    of_forecast: float
    documents_per_s: float
    peak_rss_mb: int
    threads: int


@click.command()
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--text-field", "text_fields", multiple=True, default=("title", "text"), show_default=True)
@click.option("--documents", type=click.IntRange(min=1), help="How many of the file; all by default.")
@click.option("--sample", type=click.IntRange(min=1), default=1000, show_default=True, help="Documents to plan on.")
@click.option("--no-expansion", is_flag=True, help="Vectors alone, without predicted queries.")
@click.option("--url", help="Cluster to use; an embedded node by default.")
@click.option("--json", "as_json", is_flag=True, help="End with one JSON object on a line.")
def command(
    file: Path,
    text_fields: tuple[str, ...],
    documents: int | None,
    sample: int,
    no_expansion: bool,
    url: str | None,
    as_json: bool,
) -> None:
    """Compares the forecast of `plan` with the backfill that follows."""
    settings = load_settings(ingest={"generator": ""} if no_expansion else {})
    with cluster_at(url) as address, connect(ClusterSettings(url=address)) as client:
        _write(client, file, documents)
        figures = measure(client, settings.ingest, text_fields, sample)
        indices.delete(client, INDEX)
    click.echo(
        f"{figures.documents:,} documents, planned on {figures.sampled:,}: {figures.forecast_s:.0f} s foreseen, "
        f"{figures.real_s:.0f} s needed ({figures.of_forecast:.2f} of the forecast), "
        f"{figures.documents_per_s:.1f} documents/s, {figures.peak_rss_mb:,} MB"
    )
    if as_json:
        click.echo(msgspec.json.encode(figures).decode())


def measure(client: OpenSearch, settings: IngestSettings, text_fields: tuple[str, ...], sample: int) -> Figures:
    """Plans the index on a sample, then backfills it."""
    models = load_models(settings)
    profile = profile_for(models, text_fields)
    planned = plan(Way(INDEX, None), profile=profile, models=models, client=client, settings=settings, sample=sample)
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        done = run_backfill(
            Job(
                INDEX,
                profile=profile,
                models=models,
                client=client,
                settings=settings,
                state_folder=Path(folder),
            ),
        ).report
        real_s = time.perf_counter() - began
    if done.ledger.written != planned.documents:
        raise IngestError(f"{done.ledger.written:,} of {planned.documents:,} documents were written: {done.ledger}")
    forecast_s = planned.hours * 3600
    return Figures(
        documents=planned.documents,
        sampled=planned.measured,
        forecast_s=round(forecast_s, 1),
        real_s=round(real_s, 1),
        of_forecast=round(real_s / forecast_s, 3),
        documents_per_s=round(planned.documents / real_s, 1),
        peak_rss_mb=round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        threads=compute_threads(settings.threads),
    )


def _write(client: OpenSearch, file: Path, n_documents: int | None) -> None:
    """A fresh index with documents of the file, as an application writes them."""
    if indices.find(client, INDEX) is not None:
        indices.delete(client, INDEX)
    client.indices.create(index=INDEX, body={"settings": {"index.knn": True, "index.number_of_replicas": 0}})
    with file.open(encoding="utf-8") as lines:
        remaining = islice(lines, n_documents)
        while some := list(islice(remaining, _BULK_DOCUMENTS)):
            actions = []
            for line in some:
                document = json_module.loads(line)
                actions += [{"index": {"_id": document.pop("_id")}}, document]
            client.bulk(index=INDEX, body="".join(json_module.dumps(action) + "\n" for action in actions))
    client.indices.refresh(index=INDEX)
