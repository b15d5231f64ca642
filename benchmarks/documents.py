"""`scripts/bench documents`: what ingest adds to the time of its slowest stage, and beside opensearch-py's own
bulk helper.

Documents are drawn from the Python language reference, which comes with every interpreter. Each
measurement runs in a process of its own, against an embedded node with a fresh index.
"""

import json as json_module
import math
import multiprocessing
import random
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from pydoc_data.topics import topics

import click
import msgspec
from opensearchpy import OpenSearch
from opensearchpy.helpers import parallel_bulk

from bridge.cluster import index as indices
from bridge.cluster.connection import connect
from bridge.errors import IngestError
from bridge.models.session import compute_threads
from bridge.node.node import EmbeddedNode
from bridge.profile import DEFAULT_OBJECT, IndexProfile
from bridge.records import Document, Passage
from bridge.settings import ClusterSettings, load_settings
from ingest.job import Job
from ingest.runs.ingest import run_ingest
from ingest.runs.run import BATCH_DOCUMENTS
from ingest.sources.documents import FieldChoice
from ingest.sources.files import FileDocuments
from ingest.stages.embedding import Embedding
from ingest.stages.expansion import Expansion
from ingest.stages.models import load_models, planned_profile, profile_for

INDEX = "bench-ingest"
STAGES = ("expansion", "embedding")
N_ENRICHED = 2_000
SIZES = (10_000, 100_000)
N_RUNS = 3
WORDS_PER_DOCUMENT = 40
MAX_DOC_BYTES = 1_000_000
HEAP_MB = 1536
"""With less, the node's circuit breaker refuses requests now and then, and what is measured is waiting."""
STAMP = f"{'0' * 16}.{'0' * 16}.{{:016x}}"
"""In the shape of `ingest.stamp`: recipe, texts (none) and body, of which the last is another one in each document."""
TEXT = FieldChoice(text_fields=["text"])
STATIC_ENCODER = "embed-static"
NO_TEXT = FieldChoice(text_fields=["absent"])
"""Where no field holds text no model has work: what is left is reading, checking, writing and accounting."""


class Figures(msgspec.Struct, frozen=True):
    """What was measured.

    `of_slowest_stage`: throughput of the whole pipeline over that of its slowest stage alone, both with half of
    the cores for each model. `of_slowest_stage_on_all_cores`: the same with all cores for each, which alone the
    stage has to itself, and in the pipeline has not. `of_stages_in_turn`: over that of the stages one after the
    other, each with all cores: 1 is what cores that are busy throughout can do, and what is missing goes to
    reading, queues, writing and accounts.
    `vs_parallel_bulk`: throughput without models over that of opensearch-py's `parallel_bulk` of the same documents,
    stamps included; `vs_parallel_bulk_without_stamps`: of the documents as they are in the file, by which no second run
    would know what is done.
    `searchable_s`: until the larger number of documents can be searched by words and static vectors (`embed-static`),
    from nothing, models loaded and the index refreshed; better models follow in the background, as another generation.
    `growth_exponent`: of time in documents, without models, between the two sizes; 1 is linear.
    """

    documents: int
    tokens_per_s: float
    documents_per_s: float
    of_slowest_stage: float
    of_slowest_stage_on_all_cores: float
    of_stages_in_turn: float
    stage_documents_per_s: dict[str, float]
    plain_documents_per_s: float
    parallel_bulk_documents_per_s: float
    vs_parallel_bulk: float
    vs_parallel_bulk_without_stamps: float
    searchable_s: float
    growth_exponent: float
    peak_rss_mb: float
    peak_rss_mb_by_size: dict[str, float]
    threads: int


class _Timed(msgspec.Struct, frozen=True):
    seconds: float
    peak_rss_mb: float
    tokens: int = 0


@click.command()
@click.option("--json", "as_json", is_flag=True, help="End with one JSON object.")
@click.option("--quick", is_flag=True, help="A tenth of the documents: to see that it works.")
@click.option("--url", help="Cluster to use; an embedded node by default.")
def command(as_json: bool, quick: bool, url: str | None) -> None:
    """Measures ingest and prints a table."""
    tenth = 10 if quick else 1
    with cluster_at(url) as address, tempfile.TemporaryDirectory() as folder:
        figures = measure(address, Path(folder), N_ENRICHED // tenth, (SIZES[0] // tenth, SIZES[1] // tenth))
    for name, value in msgspec.structs.asdict(figures).items():
        click.echo(f"{name:32} {value}")
    if as_json:
        click.echo(json_module.dumps(msgspec.to_builtins(figures)))


def measure(url: str, folder: Path, n_enriched: int, sizes: tuple[int, int]) -> Figures:
    """All measurements, one after another; medians where runs are short enough to repeat."""
    corpora = {n: write_corpus(folder / f"{n}.jsonl", n) for n in (n_enriched, *sizes)}
    enriched, all_cores = corpora[n_enriched], compute_threads(0)
    # Where stages overlap, each has a share of the cores, and the slowest is asked what it does with that.
    a_share = max(1, all_cores // 2)
    overlapping = _apart(_ingest, url, enriched, TEXT, a_share)
    slowest_alone_s = max(_apart(_stage, enriched, name, a_share).seconds for name in STAGES)
    stages = {name: _apart(_stage, enriched, name, all_cores) for name in STAGES}
    whole = _apart(_ingest, url, enriched, TEXT, all_cores)
    small, large = sizes
    stamped = write_corpus(folder / "stamped.jsonl", large, stamp=STAMP)
    # What comes first meets a cluster that is not warm yet.
    _apart(_parallel_bulk, url, corpora[large])
    short = [_apart(_ingest, url, corpora[small], NO_TEXT) for _ in range(N_RUNS)]
    plain, same, bare = [], [], []
    for _ in range(N_RUNS):
        # Interleaved: whatever else the machine does meets all.
        same.append(_apart(_parallel_bulk, url, stamped).seconds)
        plain.append(_apart(_ingest, url, corpora[large], NO_TEXT))
        bare.append(_apart(_parallel_bulk, url, corpora[large]).seconds)
    searchable = _apart(_ingest_with_static_vectors, url, corpora[large])
    plain_s, short_s = (statistics.median(timed.seconds for timed in runs) for runs in (plain, short))
    return Figures(
        documents=n_enriched,
        tokens_per_s=round(stages["embedding"].tokens / whole.seconds),
        documents_per_s=round(n_enriched / whole.seconds, 1),
        of_slowest_stage=round(slowest_alone_s / overlapping.seconds, 3),
        of_slowest_stage_on_all_cores=round(max(timed.seconds for timed in stages.values()) / whole.seconds, 3),
        of_stages_in_turn=round(sum(timed.seconds for timed in stages.values()) / whole.seconds, 3),
        stage_documents_per_s={name: round(n_enriched / timed.seconds, 1) for name, timed in stages.items()},
        plain_documents_per_s=round(large / plain_s),
        parallel_bulk_documents_per_s=round(large / statistics.median(same)),
        vs_parallel_bulk=round(statistics.median(same) / plain_s, 3),
        vs_parallel_bulk_without_stamps=round(statistics.median(bare) / plain_s, 3),
        searchable_s=round(searchable.seconds, 1),
        growth_exponent=round(math.log(plain_s / short_s) / math.log(large / small), 3),
        peak_rss_mb=round(whole.peak_rss_mb),
        peak_rss_mb_by_size={str(small): round(short[-1].peak_rss_mb), str(large): round(plain[-1].peak_rss_mb)},
        threads=all_cores,
    )


@contextmanager
def cluster_at(url: str | None) -> Iterator[str]:
    """The address of the cluster to measure on: `url`, or that of an embedded node which ends with the block."""
    if url:
        yield url
        return
    with EmbeddedNode.owned("bench", load_settings(node={"heap_mb": HEAP_MB}).node) as node:
        yield node.url


def write_corpus(file: Path, n_documents: int, *, stamp: str | None = None) -> Path:
    """Stretches of the language reference, each with a number of its own so that no two are alike; with a `stamp`,
    which takes that number, each carries one in our object."""
    words = " ".join(topics[topic] for topic in sorted(topics)).split()
    chosen = random.Random(n_documents)
    with file.open("w", encoding="utf-8") as lines:
        for i in range(n_documents):
            begin = chosen.randrange(len(words) - WORDS_PER_DOCUMENT)
            text = " ".join(words[begin : begin + WORDS_PER_DOCUMENT])
            document: dict[str, object] = {"_id": f"d{i}", "text": text, "number": i}
            if stamp is not None:
                document[DEFAULT_OBJECT] = {"stamp": stamp.format(i)}
            lines.write(json_module.dumps(document) + "\n")
    return file


def _apart(measurement: Callable[..., _Timed], *arguments: object) -> _Timed:
    """Runs a measurement in a process of its own, so that memory is its own too."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(measurement, *arguments).result()


def _stage(corpus: Path, name: str, threads: int) -> _Timed:
    """One stage alone, on batches as the pipeline makes them."""
    settings = load_settings(ingest={"threads": threads}).ingest
    models = load_models(settings)
    expand = Expansion.of(profile_for(models, TEXT.text_fields), models, settings)
    embed = Embedding(models.encoder, stamp=lambda _: "")
    documents = [item for item in _source(corpus, TEXT).items() if isinstance(item, Document)]
    batches = [documents[begin : begin + BATCH_DOCUMENTS] for begin in range(0, len(documents), BATCH_DOCUMENTS)]
    if name == "expansion":
        return _timed(lambda: [expand(batch) for batch in batches])
    split = Expansion(lambda text: [Passage(text, 0, len(text))], None, n_queries=0, max_query_tokens=1, max_bytes=0)
    ready = [split(batch) for batch in batches]
    tokens = sum(len(models.token_spans(text)) for document in documents for text in document.texts.values())
    return _timed(lambda: [embed(batch) for batch in ready], tokens=tokens)


def _ingest(url: str, corpus: Path, fields: FieldChoice, threads: int = 0) -> _Timed:
    """A whole run into a fresh index; models are loaded before the clock starts."""
    settings = load_settings(ingest={"threads": threads}).ingest
    models = load_models(settings)
    profile = profile_for(models, fields.text_fields)
    with connect(ClusterSettings(url=url)) as client, tempfile.TemporaryDirectory() as state_folder:
        _fresh_index(client, profile)
        return _timed(
            lambda: run_ingest(
                _source(corpus, fields),
                Job(
                    index=INDEX,
                    profile=profile,
                    models=models,
                    client=client,
                    settings=settings,
                    state_folder=Path(state_folder),
                ),
            )
        )


def _ingest_with_static_vectors(url: str, corpus: Path) -> _Timed:
    """A whole run into a fresh index, models loaded meanwhile, until a search finds words and vectors."""
    settings = load_settings(ingest={"encoder": STATIC_ENCODER, "generator": ""}).ingest
    with connect(ClusterSettings(url=url)) as client, tempfile.TemporaryDirectory() as state_folder:

        def fill() -> None:
            models = load_models(settings)
            profile = profile_for(models, TEXT.text_fields)
            _fresh_index(client, profile)
            run_ingest(_source(corpus, TEXT), Job(INDEX, profile, models, client, settings, Path(state_folder)))
            found = client.count(index=INDEX, body={"query": {"exists": {"field": profile.embedding_field}}})["count"]
            if found != indices.count(client, INDEX):
                raise IngestError(f"only {found:,} documents have a vector: the figure means nothing")

        return _timed(fill)


def _parallel_bulk(url: str, corpus: Path) -> _Timed:
    """The same file by opensearch-py's helper, with its own defaults, into the same kind of index."""
    settings = load_settings().ingest
    with connect(ClusterSettings(url=url)) as client:
        _fresh_index(client, planned_profile(settings, NO_TEXT.text_fields))

        def actions() -> Iterator[dict[str, object]]:
            with corpus.open(encoding="utf-8") as lines:
                for line in lines:
                    document = json_module.loads(line)
                    yield {"_index": INDEX, "_id": document.pop("_id"), "_source": document}

        def write() -> None:
            for succeeded, _ in parallel_bulk(client, actions()):
                if not succeeded:
                    raise IngestError("parallel_bulk left a document unwritten: the comparison means nothing")
            client.indices.refresh(index=INDEX)

        return _timed(write)


def _fresh_index(client: OpenSearch, profile: IndexProfile) -> None:
    if indices.find(client, INDEX) is not None:
        indices.delete(client, INDEX)
    indices.create(client, INDEX, profile, settings={"index.number_of_replicas": 0})


def _source(corpus: Path, fields: FieldChoice) -> FileDocuments:
    return FileDocuments([str(corpus)], fields, max_doc_bytes=MAX_DOC_BYTES)


def _timed(work: Callable[[], object], *, tokens: int = 0) -> _Timed:
    began = time.perf_counter()
    work()
    seconds = time.perf_counter() - began
    return _Timed(seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, tokens)
