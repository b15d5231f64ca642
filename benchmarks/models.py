"""`scripts/bench models COLLECTION...`: encoders and rerankers beside each other, in memory, over the same BM25.

What the models are worth by themselves: nothing is enriched, no proxy is asked, every vector is compared. Texts are
cut to what a model reads. An encoder's speed is that of documents and queries together, on all CPUs.

With several collections the last lines compare each ranking with BM25 alone, and with the first encoder's fusion, query
by query: the mean difference over all queries and its 95 % interval.
"""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import click
import msgspec
import numpy as np
from numpy.typing import NDArray
from opensearchpy import OpenSearch

from benchmarks.plain_index import ANSERINI, BOTH, fill, search, values
from bridge.cluster.connection import connect
from bridge.evaluation.application_query import multi_match
from bridge.evaluation.collections import Collection, load_collection, read_documents
from bridge.evaluation.judged_queries import JudgedQueries
from bridge.evaluation.measures import bootstrap_interval
from bridge.evaluation.memory import Corpus, TermWeights
from bridge.models.artifact import resolve
from bridge.models.cross_encoder import CrossEncoder
from bridge.models.encoder import Encoder
from bridge.models.sparse_encoder import SparseEncoder
from bridge.node.node import EmbeddedNode
from bridge.profile import (
    SPARSE_WEIGHTS,
    FusionSettings,
    IndexProfile,
    ModelReference,
    RerankSettings,
    SparseSettings,
)
from bridge.records import Hit, RankedHit
from bridge.settings import ClusterSettings, load_settings
from bridge.text import enriched_text

WINDOW = 100
INDEX = "bench-models"

PROFILE = IndexProfile(
    text_fields=[],
    encoder=ModelReference("", ""),
    dimension=0,
    fusion=FusionSettings(weights={"lexical": 1.0, "vector": 1.0}),
    window=WINDOW,
    codes="planes",
)

_SPARSE = SparseSettings(ModelReference("", ""))
WITHOUT_VECTORS = msgspec.structs.replace(
    PROFILE, vector_type="none", codes="terms", sparse=_SPARSE, fusion=FusionSettings(weights=SPARSE_WEIGHTS)
)
WITH_VECTORS_AND_TERMS = msgspec.structs.replace(
    PROFILE, sparse=_SPARSE, fusion=FusionSettings(weights={"lexical": 0.4, "vector": 0.4, "sparse": 0.2})
)

Rankings = Mapping[str, Sequence[Hit | RankedHit]]
"""Hits by query_id, best first."""


@click.command()
@click.argument("folders", nargs=-1, required=True, type=click.Path(path_type=Path, file_okay=False, exists=True))
@click.option("--split", default="test", show_default=True, help="Which judgements.")
@click.option("--max-queries", type=click.IntRange(min=1), help="Take only so many queries, evenly spread.")
@click.option("--encoder", "encoders", multiple=True, default=["embed-base"], show_default=True, help="Path or name.")
@click.option("--sparse-encoder", "sparse_encoders", multiple=True, help="Path or name; queries weigh without it.")
@click.option("--reranker", "rerankers", multiple=True, help="Path or name; it reads what the first encoder found.")
@click.option("--depth", type=click.IntRange(1, WINDOW), default=30, show_default=True, help="Documents reranked.")
@click.option("--blend", type=click.FloatRange(0, 1), default=0.6, show_default=True, help="Share of the fused score.")
@click.option(
    "--vector-weight",
    type=click.FloatRange(0),
    default=1.0,
    show_default=True,
    help="Vectors' weight; that of words is 1.",
)
@click.option("--json", "as_json", is_flag=True, help="End with one JSON object.")
def command(
    folders: tuple[Path, ...],
    split: str,
    max_queries: int | None,
    encoders: tuple[str, ...],
    sparse_encoders: tuple[str, ...],
    rerankers: tuple[str, ...],
    depth: int,
    blend: float,
    vector_weight: float,
    as_json: bool,
) -> None:
    """Prints nDCG@10 of BM25, of each encoder alone and fused with BM25, and of each reranker after that, with their
    differences; and how many texts each encoder embeds in a second.

    Terms of a sparse encoder are fused with BM25, and with BM25 and the vectors of the first encoder."""
    figures: dict[str, dict[str, float]] = {}
    by_query: dict[str, list[NDArray[np.float64]]] = {}
    profile = msgspec.structs.replace(
        PROFILE,
        fusion=FusionSettings(weights={"lexical": 1.0, "vector": vector_weight}),
        rerank=RerankSettings(depth=depth, blend=blend),
    )
    with (
        EmbeddedNode.owned(INDEX, load_settings().node) as node,
        connect(ClusterSettings(url=node.url)) as client,
    ):
        for folder in folders:
            ground = Ground.of(client, load_collection(folder, split), max_queries)
            click.echo(f"{folder.name}: {len(ground.documents):,} documents, {len(ground.judged.queries):,} queries")
            found = figures[folder.name] = {}
            for name, rankings in ground.compared(encoders, rerankers, profile, sparse_encoders):
                by_query.setdefault(name, []).append(values(ground.judged, rankings))
                found[name] = round(float(by_query[name][-1].mean()), 4)
                click.echo(f"  {name:<50} {found[name]:.3f}")
            for name, speed in ground.texts_per_second.items():
                found[f"{name}, texts/s"] = speed
                click.echo(f"  {f'{name}, texts/s':<50} {speed:,.0f}")
    for name, differences in compared_with(["BM25", f"BM25 and {encoders[0]}"], by_query).items():
        click.echo(f"  {name:<50} {'; '.join(differences)}")
    if as_json:
        click.echo(json.dumps(figures))


def compared_with(
    baselines: Sequence[str], by_query: Mapping[str, Sequence[NDArray[np.float64]]]
) -> dict[str, list[str]]:
    """How each ranking differs from the baselines, in words; `by_query`: by ranking, its values in each collection."""
    joined = {name: np.concatenate(collections) for name, collections in by_query.items()}
    found: dict[str, list[str]] = {}
    for name, own in joined.items():
        for baseline in baselines:
            if name != baseline:
                difference = bootstrap_interval(own - joined[baseline])
                shown = f"{difference.mean:+.4f} [{difference.low:+.4f}, {difference.high:+.4f}]"
                found.setdefault(name, []).append(f"{shown} to {baseline}")
    return found


@dataclass(frozen=True, slots=True)
class Ground:
    """What every model is compared on: texts by doc_id, judged queries, and what BM25 found for them.
    `texts_per_second` is filled as encoders are compared."""

    documents: Mapping[str, str]
    judged: JudgedQueries
    lexical: Mapping[str, Sequence[Hit]]
    texts_per_second: dict[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, client: OpenSearch, collection: Collection, max_queries: int | None) -> "Ground":
        """Asks BM25, in an index that is gone afterwards."""
        judged = collection.judged.spread(max_queries)
        fill(client, INDEX, collection.corpus, bm25=ANSERINI, analyzer="english")
        lexical = search(client, INDEX, judged.queries, multi_match([BOTH]))
        client.indices.delete(index=INDEX)
        documents = {
            doc_id: enriched_text({"title": title, "text": text})
            for doc_id, title, text in read_documents(collection.corpus)
        }
        return cls(documents, judged, lexical)

    def _corpus(self, profile: IndexProfile) -> Corpus:
        documents = {doc_id: [text] for doc_id, text in self.documents.items()}
        return Corpus(documents, self.judged.queries, self.lexical, profile, index=INDEX)

    def compared(
        self,
        encoders: Sequence[str],
        rerankers: Sequence[str],
        profile: IndexProfile = PROFILE,
        sparse_encoders: Sequence[str] = (),
    ) -> Iterator[tuple[str, Rankings]]:
        """Each ranking with what made it."""
        yield "BM25", self.lexical
        corpus = self._corpus(profile)
        embedded = {}
        for name in encoders:
            encoder = Encoder.load(resolve(name))
            began = time.perf_counter()
            vectors = embedded[name] = corpus.embed(encoder)
            n_texts = len(self.documents) + len(self.judged.queries)
            self.texts_per_second[name] = n_texts / (time.perf_counter() - began)
            encoder.close()
            yield name, corpus.rank("vector", vectors)
            yield f"BM25 and {name}", corpus.rank("hybrid", vectors)
            yield f"BM25 and {name}, smoothed", corpus.rank("smoothing", vectors)
        for name in sparse_encoders:
            sparse_encoder = SparseEncoder.load(resolve(name))
            of_queries = [sparse_encoder.query_terms(text) for text in self.judged.queries.values()]
            began = time.perf_counter()
            weights = TermWeights(sparse_encoder.encode(corpus.passages), of_queries)
            self.texts_per_second[name] = len(self.documents) / (time.perf_counter() - began)
            sparse_encoder.close()
            without_vectors, with_vectors = map(self._corpus, (WITHOUT_VECTORS, WITH_VECTORS_AND_TERMS))
            vectors = embedded[encoders[0]]
            yield name, without_vectors.rank("sparse", vectors, weights=weights)
            yield f"BM25 and {name}", without_vectors.rank("hybrid", vectors, weights=weights)
            yield f"BM25 and {name}, smoothed", without_vectors.rank("smoothing", vectors, weights=weights)
            yield f"BM25, {encoders[0]} and {name}", with_vectors.rank("hybrid", vectors, weights=weights)
        for name in rerankers:
            cross_encoder = CrossEncoder.load(resolve(name))
            yield f"BM25 and {encoders[0]}, {name}", corpus.rank("rerank", embedded[encoders[0]], cross_encoder)
            cross_encoder.close()
