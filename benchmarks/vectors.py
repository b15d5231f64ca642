"""`scripts/bench vectors COLLECTION...`: what vectors cost as float32 and as bytes, and what they find.

Both forms of each collection stand in one embedded node, written as ingest writes them, each merged to one segment.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import click
import msgspec
import numpy as np
from numpy.typing import NDArray
from opensearchpy import OpenSearch

from benchmarks.plain_index import worth
from bridge.cluster import dialects
from bridge.cluster.connection import capabilities, connect
from bridge.cluster.schema import new_index
from bridge.evaluation.collections import load_collection, read_documents
from bridge.models.artifact import resolve
from bridge.models.encoder import Encoder
from bridge.node.node import EmbeddedNode
from bridge.profile import IndexProfile, ModelReference, VectorEncoding
from bridge.records import Document, EnrichedDocument, Hit, Passage, SourcePosition
from bridge.settings import ClusterSettings, load_settings
from bridge.text import enriched_text
from ingest.writing.bulk import index_action

INDEX = "bench-vectors"
WINDOW = 100
WRITTEN_AT_ONCE = 500
ENCODINGS: tuple[VectorEncoding, ...] = ("float", "byte")


class Cost(msgspec.Struct, frozen=True):
    """Of one form: bytes a document on disk, bytes a vector and its links take in memory, the share of the 100 nearest
    by exact float32 cosine that the k-NN search finds, and nDCG@10 of that search."""

    disk: float
    memory: float
    recall: float
    ndcg: float


@click.command()
@click.argument("folders", nargs=-1, required=True, type=click.Path(path_type=Path, file_okay=False, exists=True))
@click.option("--split", default="test", show_default=True, help="Which judgements.")
@click.option("--max-queries", type=click.IntRange(min=1), help="Take only so many queries, evenly spread.")
@click.option("--encoder", default="embed-base", show_default=True, help="Path or name.")
@click.option("--json", "as_json", is_flag=True, help="End with one JSON object.")
def command(folders: tuple[Path, ...], split: str, max_queries: int | None, encoder: str, as_json: bool) -> None:
    """Prints bytes a document on disk and in memory, recall@100 and nDCG@10 of both forms."""
    model = Encoder.load(resolve(encoder))
    figures: dict[str, dict[str, Cost]] = {}
    with (
        EmbeddedNode.owned(INDEX, load_settings().node) as node,
        connect(ClusterSettings(url=node.url)) as client,
    ):
        for folder in folders:
            collection = load_collection(folder, split)
            judged = collection.judged.spread(max_queries)
            documents = [
                (doc_id, {"title": title, "text": text}) for doc_id, title, text in read_documents(collection.corpus)
            ]
            vectors = model.encode([enriched_text(texts) for _, texts in documents], role="passage")
            queries = model.encode(list(judged.queries.values()), role="query")
            nearest = np.argsort(-queries @ vectors.T, axis=1)[:, :WINDOW]
            exact = [{documents[i][0] for i in row} for row in nearest.tolist()]
            click.echo(f"{folder.name}: {len(documents):,} documents, {len(judged.queries):,} queries")
            found = figures[folder.name] = {}
            for encoding in ENCODINGS:
                profile, disk = fill(client, model, documents, vectors, encoding)
                runs = dict(zip(judged.queries, searched(client, profile, queries), strict=True))
                shares = [
                    len(ids & {hit.doc_id for hit in hits}) / len(ids)
                    for ids, hits in zip(exact, runs.values(), strict=True)
                ]
                found[encoding] = Cost(
                    round(disk / len(documents), 1),
                    dialects.graph_bytes(profile),
                    round(float(np.mean(shares)), 4),
                    round(worth(judged, runs), 4),
                )
                click.echo(f"  {encoding:<6} {found[encoding]}")
                client.indices.delete(index=INDEX)
    if as_json:
        click.echo(json.dumps(msgspec.to_builtins(figures)))


def fill(
    client: OpenSearch,
    model: Encoder,
    documents: Sequence[tuple[str, Mapping[str, str]]],
    vectors: NDArray[np.float32],
    encoding: VectorEncoding,
) -> tuple[IndexProfile, int]:
    """Writes the documents with their vectors. Returns the profile and the bytes of the index on disk."""
    dialect = dialects.dialect_of(capabilities(client))
    name, _, digest = model.identity.partition("@")
    profile = IndexProfile(
        text_fields=["title", "text"], encoder=ModelReference(name, digest), dimension=model.dimension, window=WINDOW
    )
    body = new_index(profile, dialect, settings={"number_of_shards": 1, "number_of_replicas": 0})
    profile = msgspec.structs.replace(profile, vector_encoding=encoding)
    ours = body["mappings"]["properties"][profile.object_field]["properties"]
    ours["embedding"] = dialect.vector_field(profile.dimension, "lucene", encoding)
    client.indices.create(index=INDEX, body=body)
    for lines in _batches(documents, vectors, profile):
        answer = client.bulk(index=INDEX, body=lines)
        if answer["errors"]:
            raise click.ClickException(f"a document was refused: {answer['items'][0]}")
    client.indices.forcemerge(index=INDEX, params={"max_num_segments": "1"})
    client.indices.refresh(index=INDEX)
    stats = client.indices.stats(index=INDEX)["indices"][INDEX]["primaries"]
    return profile, int(stats["store"]["size_in_bytes"])


def searched(client: OpenSearch, profile: IndexProfile, queries: NDArray[np.float32]) -> Iterator[list[Hit]]:
    """The hits of each query's k-NN search, best first."""
    for query in queries:
        body = {
            "size": WINDOW,
            "_source": False,
            "query": dialects.nearest(profile, query.tolist(), k=2 * WINDOW, allowed={}),
        }
        hits = client.search(index=INDEX, body=body)["hits"]["hits"]
        yield [Hit(INDEX, hit["_id"], hit["_score"]) for hit in hits]


def _batches(
    documents: Sequence[tuple[str, Mapping[str, str]]], vectors: NDArray[np.float32], profile: IndexProfile
) -> Iterator[bytes]:
    for start in range(0, len(documents), WRITTEN_AT_ONCE):
        lines = b""
        for (doc_id, texts), vector in zip(
            documents[start : start + WRITTEN_AT_ONCE], vectors[start : start + WRITTEN_AT_ONCE], strict=True
        ):
            text = enriched_text(texts)
            document = Document(doc_id, msgspec.json.encode(texts), texts, SourcePosition("corpus", start))
            enriched = EnrichedDocument(
                document=document,
                predicted_queries=(),
                passages=(Passage(text, 0, len(text)),),
                embeddings=vector[None, :],
                stamp="0" * 50,
            )
            lines += index_action(enriched, profile).lines
        yield lines
