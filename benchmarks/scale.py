"""`scripts/bench scale COLLECTION`: how searches, disk and memory grow with the documents, enriched beside an index.

A kept node holds the application's index and its companion once for each size, so that a later run only measures, and
one that was cut off makes anew what it had not finished. The first documents are the collection's own; each further one
is synthetic: the beginning of one text and the end of another. Vectors are static ones, which two cores make by the
thousand a second. Searches ask the collection's own queries, so their times mean something, and from the first
synthetic document on their hits do not.
"""

import asyncio
import json
import math
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeVar

import click
import msgspec
from opensearchpy import OpenSearch, helpers

from benchmarks.proxy_stack import resident_mb
from bridge.cluster import index as indices
from bridge.cluster.connection import connect
from bridge.commands import progress_display
from bridge.console import Display
from bridge.evaluation.application_query import multi_match
from bridge.evaluation.collections import Collection, load_collection, read_documents
from bridge.evaluation.load import LoadResult, put_under_load
from bridge.evaluation.stack import FIELDS, NODE_START_TIMEOUT_S, own_index
from bridge.node.node import EmbeddedNode
from bridge.profile import Stage, companion_of
from bridge.settings import ClusterSettings, Settings, load_settings
from ingest.job import Job
from ingest.runs.beside import run_beside
from ingest.stages.models import Models, load_models, profile_for

NODE = "bench-scale"
HEAP_MB = 1536
ENCODER = "embed-static"
STAGES: tuple[Stage, ...] = ("hybrid", "rerank")
SIZES = "10000,100000"
CLIENTS = "1,4,16"
SEED = 13
FREE_BYTES_PER_DOCUMENT = 6_000
"""Twice what a document takes in both indices: merges write a segment before they drop the old ones."""

_CHUNK = 1_000
_FILLED = "bench_scale"
"""The key under the mapping's `_meta` that says how long it took to fill an index that is finished."""
_T = TypeVar("_T")


class Fill(msgspec.Struct, frozen=True):
    """Seconds that the application's documents took to be written, and to be enriched beside."""

    written_s: float
    enriched_s: float


class Figures(msgspec.Struct, frozen=True):
    """Of one size. `application_bytes`, `companion_bytes`: on disk, of a document; `heap_mb`: of the node, the least
    that was seen between searches; `resident_mb`: of its process. `searches`: by load, latencies in milliseconds."""

    documents: int
    synthetic: int
    fill: Fill
    application_bytes: float
    companion_bytes: float
    segments: int
    heap_mb: float
    resident_mb: float
    searches: list[LoadResult]


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False, exists=True))
@click.option("--split", default="test", show_default=True, help="Whose queries are asked.")
@click.option("--documents", default=SIZES, show_default=True, help="Numbers of documents, comma-separated.")
@click.option("--clients", default=CLIENTS, show_default=True, help="Clients at the same time, comma-separated.")
@click.option("--seconds", default=5.0, show_default=True, help="Length of each load.")
@click.option("--heap-mb", default=HEAP_MB, show_default=True, help="Of the node; a million documents need 4096.")
@click.option("--anew", is_flag=True, help="Make all indices anew, to measure how long that takes.")
@click.option("--json", "as_json", is_flag=True, help="End with one JSON object.")
def command(
    folder: Path, split: str, documents: str, clients: str, seconds: float, heap_mb: int, anew: bool, as_json: bool
) -> None:
    """Prints fill time, bytes, heap and latencies for each number of documents, and with which power each grows."""
    sizes, counts = _numbers(documents), _numbers(clients)
    collection = load_collection(folder, split)
    settings = load_settings(
        node={"start_timeout_s": NODE_START_TIMEOUT_S, "heap_mb": heap_mb},
        ingest={"encoder": ENCODER, "generator": ""},
    )
    display = progress_display()
    found: list[Figures] = []
    with ExitStack() as running:
        node = running.enter_context(EmbeddedNode.kept(NODE, settings.node))
        settings = settings.model_copy(update={"cluster": ClusterSettings(url=node.url, timeout_s=600)})
        client = running.enter_context(connect(settings.cluster))
        models = load_models(settings.ingest)
        for size in sizes:
            name = f"bench-{collection.name.lower()}-{collection.digest}-{size}"
            fill = filled(client, name, collection, size, models, settings, display, node.folder, anew=anew)
            with own_index(
                name, settings, display, config_file=None, servers={"sidecar": {"encoder": ENCODER}, **_BUDGET}
            ) as index:
                searches = []
                least_heap_mb = math.inf
                for stage in STAGES:
                    for count in counts:
                        with display.step(f"{size:,} documents, {stage}, {count} clients"):
                            searches.append(
                                asyncio.run(
                                    put_under_load(
                                        index.servers.proxy_url,
                                        name,
                                        list(collection.judged.queries.values()),
                                        stage=stage,
                                        body_of=multi_match(FIELDS),
                                        clients=count,
                                        seconds=seconds,
                                    )
                                )
                            )
                        least_heap_mb = min(least_heap_mb, _heap_mb(client))
            companion = companion_of(name, settings.companion.prefix)
            found.append(
                Figures(
                    documents=size,
                    synthetic=max(0, size - collection.n_documents),
                    fill=fill,
                    application_bytes=round(_stats(client, name, "store")["size_in_bytes"] / size, 1),
                    companion_bytes=round(_stats(client, companion, "store")["size_in_bytes"] / size, 1),
                    segments=_stats(client, name, "segments")["count"] + _stats(client, companion, "segments")["count"],
                    heap_mb=round(least_heap_mb),
                    resident_mb=round(resident_mb(node.pid)),
                    searches=searches,
                )
            )
            _show(found[-1])
    powers = exponents(found)
    for name, power in powers.items():
        click.echo(f"{name:34} grows with the power {power:.2f} of the documents")
    if as_json:
        click.echo(json.dumps({"sizes": msgspec.to_builtins(found), "exponents": powers}))


_BUDGET: dict[str, dict[str, Any]] = {"proxy": {"budget_ms": 1_000}}
"""What searches have by default: what is not reranked in time is counted as degraded."""


def filled(
    client: OpenSearch,
    name: str,
    collection: Collection,
    size: int,
    models: Models,
    settings: Settings,
    display: Display,
    data_folder: Path,
    *,
    anew: bool,
) -> Fill:
    """Makes the index of `size` documents and its companion, unless they are there and finished.

    Raises:
        ClickException: the disk has too little room, or documents were refused.
    """
    companion = companion_of(name, settings.companion.prefix)
    state = indices.find(client, name)
    known = state.mapping.get("_meta", {}).get(_FILLED) if state is not None else None
    if known is not None and not anew:
        return msgspec.convert(known, Fill)
    for each in (name, companion):
        if indices.find(client, each) is not None:
            client.indices.delete(index=each)
    free, wanted = shutil.disk_usage(data_folder).free, size * FREE_BYTES_PER_DOCUMENT
    if free < wanted:
        raise click.ClickException(
            f"{size:,} documents may need {wanted / 1e9:.1f} GB while they are merged, and the disk of {data_folder} "
            f"has {free / 1e9:.1f} GB: free some, or measure fewer (--documents)"
        )
    properties = {field: {"type": "text", "analyzer": "english"} for field in FIELDS}
    body = {
        "settings": {"number_of_shards": 1, "number_of_replicas": 0, "refresh_interval": "-1"},
        "mappings": {"properties": properties},
    }
    client.indices.create(index=name, body=body)
    with display.progress(f"Write {size:,} documents", size) as progress:
        written_s, _ = _timed(lambda: _write(client, name, documents(collection.corpus, size), progress))
    with (
        tempfile.TemporaryDirectory() as folder,
        display.progress(f"Enrich {size:,} documents", size) as show,
    ):
        job = Job(
            name,
            profile_for(models, FIELDS),
            models,
            client,
            settings.ingest,
            Path(folder),
            lambda so_far: show(so_far.answered),
        )
        enriched_s, report = _timed(lambda: run_beside(job, settings.companion.prefix).report)
    if report.ledger.dead_lettered:
        raise click.ClickException(f"{name}: documents are missing: {report.ledger}")
    fill = Fill(round(written_s, 1), round(enriched_s, 1))
    client.indices.put_settings(index=name, body={"refresh_interval": None})
    client.indices.put_mapping(index=name, body={"_meta": {_FILLED: msgspec.to_builtins(fill)}})
    return fill


def documents(corpus: Path, size: int) -> Iterator[dict[str, Any]]:
    """So many documents: first those of the collection, then ones made of two of its texts each."""
    real = [(title, text) for _, title, text in read_documents(corpus)]
    for i, (title, text) in enumerate(real[:size]):
        yield {"_id": f"real-{i}", "title": title, "text": text}
    words = [text.split() for _, text in real]
    chance = random.Random(SEED)
    for i in range(len(real), size):
        one, other = chance.randrange(len(real)), chance.randrange(len(real))
        beginning, end = words[one], words[other]
        text = " ".join([*beginning[: len(beginning) // 2], *end[len(end) // 2 :]])
        yield {"_id": f"synthetic-{i}", "title": real[one][0], "text": text}


def _write(
    client: OpenSearch, name: str, documents: Iterator[dict[str, Any]], progress: Callable[[int], object]
) -> None:
    actions = ({"_index": name, "_id": document.pop("_id"), "_source": document} for document in documents)
    done = helpers.parallel_bulk(client, actions, thread_count=2, chunk_size=_CHUNK, raise_on_error=False)
    for written, (succeeded, item) in enumerate(done, start=1):
        if not succeeded:
            raise click.ClickException(f"{name}: a document was refused: {item}")
        if written % _CHUNK == 0:
            progress(written)
    client.indices.refresh(index=name)


def exponents(found: Sequence[Figures]) -> dict[str, float]:
    """With which power of the documents each figure grows from the smallest size to the largest: 1 is linear, 0 is not
    at all. Empty for one size alone."""
    if len(found) < 2:
        return {}
    small, large = found[0], found[-1]

    def power(one: float, other: float) -> float:
        return round(math.log(other / one) / math.log(large.documents / small.documents), 2)

    def seconds(figures: Figures) -> float:
        return figures.fill.written_s + figures.fill.enriched_s

    def bytes_of(figures: Figures) -> float:
        return (figures.application_bytes + figures.companion_bytes) * figures.documents

    powers = {
        "fill time": power(seconds(small), seconds(large)),
        "bytes": power(bytes_of(small), bytes_of(large)),
        "heap": power(small.heap_mb, large.heap_mb),
    }
    for one, other in zip(small.searches, large.searches, strict=True):
        if one.p50_ms and other.p50_ms:
            powers[f"{one.stage}, {one.clients} clients, p50"] = power(one.p50_ms, other.p50_ms)
    return powers


def _show(figures: Figures) -> None:
    fill = figures.fill
    click.echo(
        f"{figures.documents:,} documents ({figures.synthetic:,} synthetic): written in {fill.written_s:,.0f} s, "
        f"enriched beside in {fill.enriched_s:,.0f} s; {figures.application_bytes:,.0f} + "
        f"{figures.companion_bytes:,.0f} bytes a document in {figures.segments} segments; "
        f"heap {figures.heap_mb:,.0f} MB, resident {figures.resident_mb:,.0f} MB"
    )
    for each in figures.searches:
        click.echo(
            f"  {each.stage:<7} {each.clients:>3} clients: {each.per_second:7.1f}/s, p50 {each.p50_ms:7.1f} ms, "
            f"p95 {each.p95_ms:7.1f} ms, {each.degraded} degraded and {each.failed} failed of {each.searches}"
        )


def _heap_mb(client: OpenSearch) -> float:
    [node] = client.nodes.stats(metric="jvm")["nodes"].values()
    return float(node["jvm"]["mem"]["heap_used_in_bytes"]) / 1e6


def _stats(client: OpenSearch, index: str, metric: str) -> dict[str, Any]:
    found: dict[str, Any] = client.indices.stats(index=index, metric=metric)["_all"]["primaries"][metric]
    return found


def _timed(work: Callable[[], _T]) -> tuple[float, _T]:
    began = time.perf_counter()
    made = work()
    return time.perf_counter() - began, made


def _numbers(text: str) -> list[int]:
    """Whole numbers from 1 on, ascending.

    Raises:
        BadParameter: they are none.
    """
    try:
        numbers = sorted({int(part) for part in text.split(",")})
    except ValueError as error:
        raise click.BadParameter(f"{text}: expected whole numbers, comma-separated") from error
    if numbers[0] < 1:
        raise click.BadParameter(f"{text}: expected numbers from 1 on")
    return numbers
