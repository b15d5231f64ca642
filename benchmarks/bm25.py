"""`scripts/bench bm25 COLLECTION...`: what BM25 alone is worth, by its parameters and by the query that asks.

Published baselines differ from what an application gets: other parameters, and title and text in one field. This
tells how much of a difference to them comes from which, so that a baseline can be trusted.
"""

import json
from pathlib import Path

import click

from benchmarks.plain_index import ANSERINI, BOTH, LUCENE, fill, search, worth
from bridge.cluster.connection import connect
from bridge.evaluation.application_query import BodyOf, multi_match
from bridge.evaluation.collections import load_collection
from bridge.node.node import EmbeddedNode
from bridge.settings import ClusterSettings, load_settings

_INDEX = "bench-bm25"

QUERIES: dict[str, BodyOf] = {
    "title and text as one field": multi_match([BOTH]),
    "the better of title and text": multi_match(["title", "text"]),
}
"""What asks, in words; the second is what `neural-bridge evaluate` sends."""


@click.command()
@click.argument("folders", nargs=-1, required=True, type=click.Path(path_type=Path, file_okay=False, exists=True))
@click.option("--split", default="test", show_default=True, help="Which judgements.")
@click.option("--analyzer", default="english", show_default=True, help="Analyser of title and text.")
@click.option("--json", "as_json", is_flag=True, help="End with one JSON object.")
def command(folders: tuple[Path, ...], split: str, analyzer: str, as_json: bool) -> None:
    """Prints nDCG@10 of each collection, per parameters and query."""
    figures: dict[str, dict[str, float]] = {}
    with (
        EmbeddedNode.owned(_INDEX, load_settings().node) as node,
        connect(ClusterSettings(url=node.url)) as client,
    ):
        for folder in folders:
            collection = load_collection(folder, split)
            found = figures[collection.name] = {}
            judged = collection.judged
            click.echo(f"{collection.name}: {collection.n_documents:,} documents, {len(judged.queries):,} queries")
            for bm25 in (ANSERINI, LUCENE):
                fill(client, _INDEX, collection.corpus, bm25=bm25, analyzer=analyzer)
                for words, body_of in QUERIES.items():
                    rankings = search(client, _INDEX, judged.queries, body_of)
                    value = found[f"{bm25}; {words}"] = worth(judged, rankings)
                    click.echo(f"  {bm25!s:<14} {words:<29} {value:.3f}")
                client.indices.delete(index=_INDEX)
    if as_json:
        click.echo(json.dumps(figures))
