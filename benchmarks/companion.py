"""`scripts/bench companion COLLECTION...`: the same documents enriched in place and beside, ranked and weighed.

A kept node holds each collection four times: as an application wrote it, with a companion; in place, with vectors of
bytes; and in place with vectors of floats, as older indices have them. Each is merged to one segment. Models read every
text once; a run that was cut off goes on, and a later one only measures.
"""

import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal
from zlib import crc32

import click
import msgspec
import numpy as np
from numpy.typing import NDArray
from opensearchpy import OpenSearch

from bridge.cluster import dialects
from bridge.cluster import index as indices
from bridge.cluster.connection import capabilities, connect
from bridge.cluster.schema import new_index
from bridge.commands import progress_display
from bridge.console import Display
from bridge.evaluation.application_query import multi_match
from bridge.evaluation.collections import Collection, load_collection, read_documents
from bridge.evaluation.judged_queries import JudgedQueries
from bridge.evaluation.stack import FIELDS, NODE_START_TIMEOUT_S, MeasuredIndex, own_index
from bridge.evaluation.stages import measure_stages
from bridge.models.protocols import Encoder, QueryGenerator
from bridge.node.node import EmbeddedNode
from bridge.profile import IndexProfile, PassageSettings, Stage, VectorEncoding, companion_of
from bridge.settings import ClusterSettings, Settings, load_settings
from ingest.job import Job
from ingest.runs.backfill import run_backfill
from ingest.runs.beside import run_beside
from ingest.stages.models import Models, load_models, profile_for

NODE = "bench-companion"
WAYS = ("beside", "in place", "in place, float")
STAGES: tuple[Stage, ...] = ("lexical", "expansion", "vector", "hybrid", "smoothing")
RERANKED: tuple[Stage, ...] = ("rerank", "cascade")
SHARES = (0.005, 0.02, 0.1, 0.3)
"""Of all documents: what a filter lets pass."""

PARTS = 1_000
"""Into so many parts documents fall, for filters."""

WINDOW = 100
_BULK_DOCUMENTS = 500
_DELETED = "deleted"
"""The id of a document that comes and goes, so that a merge has something to do."""
_MERGE_TIMEOUT_S = 3_600
_LEASE_TIMEOUT_S = 300


class Figures(msgspec.Struct, frozen=True):
    """Of one collection, each by way.

    - `ndcg`: nDCG@10 by stage.
    - `disk`: bytes a document, beyond the application's own index.
    - `memory`: bytes a document that vectors and their links take.
    - `recall`: beside, share of filter → share of the 100 nearest by exact comparison that the vector leg finds.
    """

    documents: int
    queries: int
    reranked_queries: int
    ndcg: Mapping[str, Mapping[str, float]]
    disk: Mapping[str, float]
    memory: Mapping[str, float]
    recall: Mapping[str, float]


@click.command()
@click.argument("folders", nargs=-1, required=True, type=click.Path(path_type=Path, file_okay=False, exists=True))
@click.option("--split", default="test", show_default=True, help="Which judgements.")
@click.option("--max-queries", type=click.IntRange(min=1), default=100, show_default=True, help="Evenly spread.")
@click.option(
    "--reranked-queries", type=click.IntRange(min=1), default=30, show_default=True, help="Of these, for reranking."
)
@click.option("--json", "as_json", is_flag=True, help="End with one JSON object.")
def command(folders: tuple[Path, ...], split: str, max_queries: int, reranked_queries: int, as_json: bool) -> None:
    """Prints nDCG@10 by stage, bytes a document, and recall under filters."""
    settings, display = load_settings(node={"start_timeout_s": NODE_START_TIMEOUT_S}), progress_display()
    figures: dict[str, Figures] = {}
    with ExitStack() as running:
        node = running.enter_context(EmbeddedNode.kept(NODE, settings.node))
        settings = settings.model_copy(update={"cluster": ClusterSettings(url=node.url)})
        client = running.enter_context(connect(settings.cluster))
        models = remembering(load_models(settings.ingest))
        for folder in folders:
            collection = load_collection(folder, split)
            judged = collection.judged.spread(max_queries)
            names = _names(collection)
            fill(client, settings, models, collection, display)
            with own_index(names["beside"], settings, display, config_file=None) as index:
                reranked = judged.spread(reranked_queries)
                figures[folder.name] = measured(index, models.encoder, judged, reranked, names, display)
            _show(folder.name, figures[folder.name])
    if as_json:
        click.echo(json.dumps(msgspec.to_builtins(figures)))


def fill(client: OpenSearch, settings: Settings, models: Models, collection: Collection, display: Display) -> None:
    """Makes the indices of a collection, as far as they are not there."""
    profile = profile_for(models, FIELDS, passages=PassageSettings(layout="nested"))
    for way, name in _names(collection).items():
        kept = indices.find(client, name) is not None
        if kept and indices.count(client, name) < collection.n_documents:  # whoever wrote them was cut off
            client.indices.delete(index=name)
            kept = False
        if not kept:
            create(client, name, profile, way)
            _write(client, name, collection.corpus)
        shown = msgspec.structs.replace(profile, vector_encoding="float" if way == "in place, float" else "byte")
        with (
            tempfile.TemporaryDirectory() as folder,
            display.progress(f"{collection.name} {way}", collection.n_documents) as show,
        ):
            job = Job(name, shown, models, client, settings.ingest, Path(folder), lambda so_far: show(so_far.answered))
            beside = way == "beside"
            report = run_beside(job, settings.companion.prefix).report if beside else run_backfill(job).report
        if report.ledger.dead_lettered:
            raise click.ClickException(f"{name}: documents are missing: {report.ledger}")
        # Whether or not this run wrote them: deleted documents count in BM25 until a merge.
        for each in {name, companion_of(name, settings.companion.prefix) if beside else name}:
            _merge(client, each)


def _merge(client: OpenSearch, index: str) -> None:
    """Merges an index to one segment. What `_source` leaves out is stored all the same until every copy of the shard
    has it; the next merge drops it. A segment is written anew only for something that was deleted in it: so a document
    comes into it by a first merge, and goes before the second."""
    client.index(index=index, id=_DELETED, body={}, refresh=True)
    client.indices.forcemerge(index=index, max_num_segments=1, request_timeout=_MERGE_TIMEOUT_S)
    client.delete(index=index, id=_DELETED)
    deadline = time.monotonic() + _LEASE_TIMEOUT_S
    while not _is_retained_no_longer(client, index):
        if time.monotonic() > deadline:
            raise click.ClickException(f"{index}: its retention leases do not move on")
        time.sleep(1)
    # What a shard has not committed yet it keeps: replaced documents would survive the merge, and count in BM25.
    client.indices.flush(index=index)
    client.indices.forcemerge(index=index, max_num_segments=1, request_timeout=_MERGE_TIMEOUT_S)
    client.indices.refresh(index=index)
    if left := client.indices.stats(index=index, metric="docs")["_all"]["primaries"]["docs"]["deleted"]:
        raise click.ClickException(f"{index}: {left} deleted documents are left, and count in BM25")


def _is_retained_no_longer(client: OpenSearch, index: str) -> bool:
    stats = client.indices.stats(index=index, metric="docs", level="shards")["indices"][index]["shards"]
    return all(
        lease["retaining_seq_no"] > shard["seq_no"]["max_seq_no"]
        for copies in stats.values()
        for shard in copies
        for lease in shard["retention_leases"]["leases"]
    )


def create(client: OpenSearch, name: str, profile: IndexProfile, way: str) -> None:
    """An index of an application, or one for enriching in place."""
    part = {"part": {"type": "integer"}}
    settings = {"number_of_shards": 1, "number_of_replicas": 0}
    if way == "beside":
        texts = {field: {"type": "text", "analyzer": "english"} for field in FIELDS}
        client.indices.create(index=name, body={"settings": settings, "mappings": {"properties": texts | part}})
        return
    dialect = dialects.dialect_of(capabilities(client))
    body = new_index(profile, dialect, settings=settings, properties=part)
    if way == "in place, float":
        encoding: VectorEncoding = "float"
        [kept] = body["mappings"]["_meta"].values()
        kept["vector_encoding"] = encoding
        passages = body["mappings"]["properties"][profile.object_field]["properties"]["passages"]["properties"]
        passages["embedding"] = dialect.vector_field(profile.dimension, "lucene", encoding)
    client.indices.create(index=name, body=body)


def measured(
    index: MeasuredIndex,
    encoder: Encoder,
    judged: JudgedQueries,
    reranked: JudgedQueries,
    names: Mapping[str, str],
    display: Display,
) -> Figures:
    """All figures of one collection; `index` is the one that is enriched beside."""
    ndcg: dict[str, dict[str, float]] = {}
    disk, memory = {}, {}
    companion = index.profile_in
    application = _store_bytes(index.cluster, index.name)
    for way, name in names.items():
        with display.step(f"Search {name}"):
            results = [
                result
                for queries, stages in ((judged, STAGES), (reranked, RERANKED))
                for result in measure_stages(
                    index.proxy,
                    name,
                    queries=queries.queries,
                    qrels=queries.qrels,
                    stages=stages,
                    body_of=multi_match(FIELDS),
                    say=display.say,
                    own_documents=queries.own_documents,
                )
            ]
        for result in results:
            if result.run.degraded:
                display.say(f"{way}, {result.name}: {result.run.degraded:,} searches were answered by an earlier stage")
        ndcg[way] = {result.name: result.figures()["ndcg@10"] for result in results}
        enriched = companion if way == "beside" else name
        added = _store_bytes(index.cluster, enriched) - (0 if way == "beside" else application)
        profile = indices.look(index.cluster, enriched).required_profile
        vectors = _lucene_documents(index.cluster, enriched) - index.n_documents
        disk[way] = round(added / index.n_documents, 1)
        memory[way] = round(vectors * dialects.graph_bytes(profile) / index.n_documents, 1)
    with display.step(f"Filter {index.name}"):
        recall = {f"{share:g}": recall_under_filter(index, encoder, judged, share) for share in SHARES}
    return Figures(index.n_documents, len(judged.queries), len(reranked.queries), ndcg, disk, memory, recall)


def recall_under_filter(index: MeasuredIndex, encoder: Encoder, judged: JudgedQueries, share: float) -> float:
    """The mean share of the 100 nearest allowed documents, by exact comparison, that the vector leg finds."""
    condition = {"range": {"part": {"lt": round(PARTS * share)}}}
    allowed = [hit["_id"] for hit in _all_hits(index.cluster, index.name, condition)]
    vectors: NDArray[np.float32] = encoder.encode(list(judged.queries.values()), "query")
    shares = []
    for text, vector in zip(judged.queries.values(), vectors, strict=True):
        compared = dialects.compared(index.profile, vector.tolist())
        exact = {"bool": {"must": [compared], "filter": [{"ids": {"values": allowed}}]}}
        scores = {hit["_id"]: hit["_score"] for hit in _all_hits(index.cluster, index.profile_in, exact)}
        wanted = sorted(scores.values(), reverse=True)[:WINDOW]
        query = {"bool": {"must": [{"multi_match": {"query": text, "fields": list(FIELDS)}}], "filter": [condition]}}
        answer = index.proxy.search(
            index=index.name, body={"size": WINDOW, "query": query}, headers={"x-bridge": "vector, explain"}
        )
        found = [hit["_id"] for hit in answer["hits"]["hits"] if "vector" in hit.get("_bridge", {}).get("legs", {})]
        # Of equally near documents any will do.
        near = sum(scores[doc_id] >= wanted[-1] for doc_id in found)
        shares.append(min(near / len(wanted), 1.0) if wanted else 1.0)
    return round(float(np.mean(shares)), 4)


def _all_hits(client: OpenSearch, index: str, query: Mapping[str, Any]) -> list[dict[str, Any]]:
    hits: list[dict[str, Any]] = client.search(index=index, body={"size": 10_000, "_source": False, "query": query})[
        "hits"
    ]["hits"]
    return hits


def _names(collection: Collection) -> dict[str, str]:
    stem = f"bench-{collection.name.lower()}-{collection.digest}"
    return {way: f"{stem}-{way.replace(', ', '-').replace(' ', '-')}" for way in WAYS}


def _write(client: OpenSearch, name: str, corpus: Path) -> None:
    lines: list[object] = []
    for doc_id, title, text in read_documents(corpus):
        part = crc32(doc_id.encode()) % PARTS
        lines += [{"index": {"_id": doc_id}}, {"title": title, "text": text, "part": part}]
    for start in range(0, len(lines), 2 * _BULK_DOCUMENTS):
        some = lines[start : start + 2 * _BULK_DOCUMENTS]
        body = b"".join(msgspec.json.encode(line) + b"\n" for line in some)
        if client.bulk(index=name, body=body, params={"filter_path": "errors"})["errors"]:
            raise click.ClickException(f"index {name} refused documents")
    client.indices.refresh(index=name)


def _store_bytes(client: OpenSearch, index: str) -> int:
    client.indices.refresh(index=index)
    return int(client.indices.stats(index=index, metric="store")["_all"]["primaries"]["store"]["size_in_bytes"])


def _lucene_documents(client: OpenSearch, index: str) -> int:
    """Documents and their passages."""
    return int(client.indices.stats(index=index, metric="docs")["_all"]["primaries"]["docs"]["count"])


class _RememberingEncoder:
    """Reads each text once."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._read: dict[tuple[str, str], NDArray[np.float32]] = {}
        self.dimension = encoder.dimension

    def encode(self, texts: Sequence[str], role: Literal["query", "passage"] = "query") -> NDArray[np.float32]:
        new = list(dict.fromkeys(text for text in texts if (text, role) not in self._read))
        if new:
            vectors = self._encoder.encode(new, role)
            self._read.update({(text, role): vector for text, vector in zip(new, vectors, strict=True)})
        return np.stack([self._read[text, role] for text in texts])


class _RememberingGenerator:
    """Predicts from each passage once."""

    def __init__(self, generator: QueryGenerator) -> None:
        self._generator = generator
        self._read: dict[str, list[str]] = {}

    def generate(self, passages: Sequence[str], *, n_queries: int, max_new_tokens: int, seed: int) -> list[list[str]]:
        new = list(dict.fromkeys(text for text in passages if text not in self._read))
        if new:
            predicted = self._generator.generate(new, n_queries=n_queries, max_new_tokens=max_new_tokens, seed=seed)
            self._read.update(zip(new, predicted, strict=True))
        return [self._read[text] for text in passages]


def remembering(models: Models) -> Models:
    """Models that read each text once."""
    generator = _RememberingGenerator(models.generator) if models.generator else None
    return replace(models, encoder=_RememberingEncoder(models.encoder), generator=generator)


def _show(name: str, figures: Figures) -> None:
    click.echo(
        f"{name}: {figures.documents:,} documents, {figures.queries:,} queries, {figures.reranked_queries:,} reranked"
    )
    for way in WAYS:
        stages = ", ".join(f"{stage} {value:.3f}" for stage, value in figures.ndcg[way].items())
        click.echo(
            f"  {way:<15} nDCG@10: {stages}; "
            f"{figures.disk[way]:,.0f} bytes a document on disk, {figures.memory[way]:,.0f} in memory"
        )
    recall = ", ".join(f"{float(share):.1%} of the documents: {value:.3f}" for share, value in figures.recall.items())
    click.echo(f"  recall@100 of vectors under a filter, beside, against exact: {recall}")
