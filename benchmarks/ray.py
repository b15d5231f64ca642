"""`scripts/bench ray`: what Ray costs beside one process, and what a second machine adds.

The same documents, once with vectors alone (little work for each, so that Ray's share is largest) and once with
predicted queries too: in one process, then on a Ray cluster of two nodes on loopback, which stand for two
machines, with one worker and with two. Every worker computes on one thread. Rates are taken between the
first answer and the last: Ray's start and the opening of models are left out.
docs/explanation/sizing.md reckons with these figures.
"""

import json as json_module
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import msgspec
import ray
from opensearchpy import OpenSearch
from ray.cluster_utils import Cluster

from benchmarks.documents import HEAP_MB, write_corpus
from bridge.cluster import index as indices
from bridge.cluster.connection import connect
from bridge.node.node import EmbeddedNode
from bridge.profile import IndexProfile
from bridge.settings import ClusterSettings, IngestSettings, load_settings
from ingest.books.ledger import Progress, Report
from ingest.job import Job
from ingest.ray.cluster_address import ClusterAddress
from ingest.ray.executor import RayExecutor
from ingest.runs.ingest import run_ingest
from ingest.sources.documents import FieldChoice
from ingest.sources.files import FileDocuments
from ingest.stages.models import load_models, profile_for

INDEX = "bench-ray"
FIELDS = FieldChoice(text_fields=["text"])
NO_TEXT = FieldChoice(text_fields=["absent"])
"""Where no field holds text, documents are written with a stamp alone: what they take up without us."""

MAX_DOC_BYTES = 1_000_000
N_DOCUMENTS = {"vectors": 6_000, "vectors and predicted queries": 1_500}
"""Half a minute each, so that the first and the last batch, between which is measured, say little."""

CPUS_PER_NODE = 2
"""One for a worker; reading and writing share the other, so that two workers need both nodes."""

OBJECT_STORE_BYTES = 500_000_000


class Figures(msgspec.Struct, frozen=True):
    """One run. `documents_per_s` between its first answer and its last; `started_s` until the first one.
    `lost_to_ray`: by how much it falls short of `workers` processes of one thread. `added_bytes`: by how much a
    document grew in the index (one copy, one segment); `peak_rss_mb`: of this process so far."""

    enriched_with: str
    runner: str
    workers: int
    documents: int
    documents_per_s: float
    started_s: float
    lost_to_ray: float
    added_bytes: int
    peak_rss_mb: int


class _Answers:
    """When answers came: takes a run's progress."""

    def __init__(self) -> None:
        self._began = time.perf_counter()
        self._seen: list[tuple[float, int]] = []

    def __call__(self, progress: Progress) -> None:
        self._seen.append((time.perf_counter(), progress.answered))

    @property
    def started_s(self) -> float:
        return self._seen[0][0] - self._began

    @property
    def documents_per_s(self) -> float:
        (first_s, first), (last_s, last) = self._seen[0], self._seen[-1]
        return (last - first) / (last_s - first_s)


@click.command()
@click.option("--json", "as_json", is_flag=True, help="End with one JSON object.")
@click.option("--quick", is_flag=True, help="A tenth of the documents: to see that it works.")
def command(as_json: bool, quick: bool) -> None:
    """Measures ingest by Ray and prints a table."""
    with (
        EmbeddedNode.owned("bench-ray", load_settings(node={"heap_mb": HEAP_MB}).node) as node,
        tempfile.TemporaryDirectory() as folder,
        _two_nodes(),
    ):
        found = []
        for enriched_with, n_documents in N_DOCUMENTS.items():
            corpus = write_corpus(Path(folder) / f"{n_documents}.jsonl", n_documents // (10 if quick else 1))
            generator = {} if "queries" in enriched_with else {"generator": ""}
            settings = load_settings().ingest.model_copy(update={"threads": 1, **generator})
            found += measure(enriched_with, ClusterSettings(url=node.url), corpus, Path(folder), settings)
    if as_json:
        click.echo(json_module.dumps(msgspec.to_builtins(found)))


def measure(
    enriched_with: str, address: ClusterSettings, corpus: Path, folder: Path, settings: IngestSettings
) -> list[Figures]:
    """One process, then Ray with one worker and with two; each into a fresh index."""
    models = load_models(settings)
    profile = profile_for(models, FIELDS.text_fields)
    found: list[Figures] = []

    def job(client: OpenSearch, fields: FieldChoice, on_progress: Callable[[Progress], None] | None) -> Job:
        profile = profile_for(models, fields.text_fields)
        return Job(INDEX, profile, models, client, settings, folder / "state", on_progress)

    def local(
        client: OpenSearch, on_progress: Callable[[Progress], None] | None, fields: FieldChoice = FIELDS
    ) -> Report:
        source = FileDocuments([str(corpus)], fields, max_doc_bytes=MAX_DOC_BYTES)
        return run_ingest(source, job(client, fields, on_progress))

    def by_ray(workers: int, client: OpenSearch, on_progress: Callable[[Progress], None]) -> Report:
        # As many parts as a large collection has for each worker.
        part_bytes = max(1, corpus.stat().st_size // 8)
        source = FileDocuments([str(corpus)], FIELDS, max_doc_bytes=MAX_DOC_BYTES, part_bytes=part_bytes)
        executor = RayExecutor(ClusterAddress.of(address, None), workers, writers=1, threads=settings.threads)
        return run_ingest(source, job(client, FIELDS, on_progress), executor)

    with connect(address) as client:
        _fresh_index(client, profile_for(models, NO_TEXT.text_fields))
        plain_bytes = _bytes_per_document(client, local(client, None, NO_TEXT))
    for runner, workers in (("local", 1), ("ray", 1), ("ray", 2)):
        answers = _Answers()
        with connect(address) as client:
            _fresh_index(client, profile)
            report = local(client, answers) if runner == "local" else by_ray(workers, client, answers)
            added_bytes = _bytes_per_document(client, report) - plain_bytes
        alone = found[0].documents_per_s if found else answers.documents_per_s
        each = Figures(
            enriched_with=enriched_with,
            runner=runner,
            workers=workers,
            documents=report.ledger.written,
            documents_per_s=round(answers.documents_per_s, 1),
            started_s=round(answers.started_s, 1),
            lost_to_ray=round(1 - answers.documents_per_s / (workers * alone), 3),
            added_bytes=round(added_bytes),
            peak_rss_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        )
        found.append(each)
        click.echo(
            f"{each.enriched_with:30} {each.runner:6} {each.workers} worker(s) "
            f"{each.documents_per_s:8.1f} documents/s, first after {each.started_s:5.1f} s, "
            f"lost to Ray {each.lost_to_ray:6.1%}, {each.added_bytes} bytes more each, {each.peak_rss_mb} MB"
        )
    return found


@contextmanager
def _two_nodes() -> Iterator[None]:
    """A Ray cluster of two nodes, each with processes of its own, to which this process is connected."""
    node = {"num_cpus": CPUS_PER_NODE, "object_store_memory": OBJECT_STORE_BYTES}
    cluster = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
    try:
        cluster.add_node(**node)
        cluster.wait_for_nodes()
        ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
        yield
    finally:
        ray.shutdown()
        cluster.shutdown()


def _bytes_per_document(client: OpenSearch, report: Report) -> float:
    client.indices.forcemerge(index=INDEX, params={"max_num_segments": "1"})
    client.indices.flush(index=INDEX)
    store = client.indices.stats(index=INDEX, metric="store")["indices"][INDEX]["primaries"]["store"]
    return float(store["size_in_bytes"] / report.ledger.written)


def _fresh_index(client: OpenSearch, profile: IndexProfile) -> None:
    if indices.find(client, INDEX) is not None:
        indices.delete(client, INDEX)
    indices.create(client, INDEX, profile, settings={"index.number_of_replicas": 0})
