"""`scripts/bench models COLLECTION...`: encoders and rerankers beside each other, in memory, over the same BM25.

What the models are worth by themselves: nothing is enriched, no proxy is asked, every vector is compared. Texts are
cut to what a model reads.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
from opensearchpy import OpenSearch

from benchmarks.plain_index import ANSERINI, BOTH, fill, search, worth
from bridge.cluster.connection import connect
from bridge.evaluation.application_query import multi_match
from bridge.evaluation.collections import Collection, load_collection, read_documents
from bridge.evaluation.judged_queries import JudgedQueries
from bridge.models.artifact import resolve
from bridge.models.cross_encoder import CrossEncoder
from bridge.models.encoder import Encoder
from bridge.node.node import EmbeddedNode
from bridge.profile import FusionSettings, RerankSettings
from bridge.records import Hit, RankedHit
from bridge.search.fusion import fuse
from bridge.search.reranking import rerank
from bridge.settings import ClusterSettings, load_settings
from bridge.text.passages import enriched_text

WINDOW = 100
FUSION = FusionSettings(weights={"lexical": 1.0, "vector": 1.0})
INDEX = "bench-models"

Rankings = Mapping[str, Sequence[Hit]]
FusedRankings = Mapping[str, Sequence[RankedHit]]
"""Hits by query_id, best first."""


@click.command()
@click.argument("folders", nargs=-1, required=True, type=click.Path(path_type=Path, file_okay=False, exists=True))
@click.option("--split", default="test", show_default=True, help="Which judgements.")
@click.option("--max-queries", type=click.IntRange(min=1), help="Take only so many queries, evenly spread.")
@click.option("--encoder", "encoders", multiple=True, default=["embed-base"], show_default=True, help="Path or name.")
@click.option("--reranker", "rerankers", multiple=True, help="Path or name; it reads what the first encoder found.")
@click.option("--depth", type=click.IntRange(1, WINDOW), default=30, show_default=True, help="Documents reranked.")
@click.option("--blend", type=click.FloatRange(0, 1), default=0.6, show_default=True, help="Share of the fused score.")
@click.option("--json", "as_json", is_flag=True, help="End with one JSON object.")
def main(
    folders: tuple[Path, ...],
    split: str,
    max_queries: int | None,
    encoders: tuple[str, ...],
    rerankers: tuple[str, ...],
    depth: int,
    blend: float,
    as_json: bool,
) -> None:
    """Prints nDCG@10 of BM25, of each encoder alone and fused with BM25, and of each reranker after that."""
    figures: dict[str, dict[str, float]] = {}
    settings = RerankSettings(depth=depth, blend=blend)
    with (
        EmbeddedNode.owned(INDEX, load_settings().node) as node,
        connect(ClusterSettings(url=node.url)) as client,
    ):
        for folder in folders:
            ground = Ground.of(client, load_collection(folder, split), max_queries)
            click.echo(f"{folder.name}: {len(ground.documents):,} documents, {len(ground.judged.queries):,} queries")
            found = figures[folder.name] = {}
            for name, rankings in ground.compared(encoders, rerankers, settings):
                found[name] = worth(ground.judged, rankings)
                click.echo(f"  {name:<50} {found[name]:.3f}")
    if as_json:
        click.echo(json.dumps(figures))


@dataclass(frozen=True, slots=True)
class Ground:
    """What every model is compared on: texts by doc_id, judged queries, and what BM25 found for them."""

    documents: Mapping[str, str]
    judged: JudgedQueries
    lexical: Rankings

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

    def compared(
        self, encoders: Sequence[str], rerankers: Sequence[str], settings: RerankSettings
    ) -> Iterator[tuple[str, Rankings | FusedRankings]]:
        """Each ranking with what made it."""
        yield "BM25", self.lexical
        first: FusedRankings = {}
        for name in encoders:
            vector = self.nearest(Encoder.load(resolve(name)))
            yield name, vector
            fused = self.fused(vector)
            yield f"BM25 and {name}", fused
            first = first or fused
        for name in rerankers:
            read = self.reranked(CrossEncoder.load(resolve(name)), first, settings)
            yield f"BM25 and {encoders[0]}, {name}", read

    def nearest(self, encoder: Encoder) -> Rankings:
        """The first `WINDOW` documents by cosine, of all."""
        doc_ids = np.array(list(self.documents))
        embeddings = encoder.encode(list(self.documents.values()), role="passage")
        queries = encoder.encode(list(self.judged.queries.values()), role="query")
        encoder.close()
        found = {}
        for query_id, scores in zip(self.judged.queries, queries @ embeddings.T, strict=True):
            best = np.argsort(-scores, kind="stable")[:WINDOW]
            found[query_id] = [Hit(INDEX, str(doc_ids[row]), float(scores[row])) for row in best]
        return found

    def fused(self, vector: Rankings) -> FusedRankings:
        """Those of BM25 and of the vectors together."""
        return {
            query_id: fuse({"lexical": self.lexical[query_id], "vector": hits}, FUSION, window=WINDOW)
            for query_id, hits in vector.items()
        }

    def reranked(self, cross_encoder: CrossEncoder, fused: FusedRankings, settings: RerankSettings) -> FusedRankings:
        """The same after a cross-encoder has read the first documents of each."""
        read = {}
        for query_id, text in self.judged.queries.items():
            candidates = fused[query_id][: settings.depth]
            logits = cross_encoder.score(text, [self.documents[hit.doc_id] for hit in candidates])
            scores = {hit.key: float(logit) for hit, logit in zip(candidates, logits, strict=True)}
            read[query_id] = rerank(fused[query_id], scores, settings)
        cross_encoder.close()
        return read


if __name__ == "__main__":
    main()
