"""`scripts/bench bm25 COLLECTION...`: what BM25 alone is worth, by its parameters and by the query that asks.

Published baselines differ from what an application gets: other parameters, and title and text in one field. This
tells how much of a difference to them comes from which, so that a baseline can be trusted.
"""

import json
from pathlib import Path

import click

from benchmarks.plain_index import ANSERINI, BOTH, LUCENE, fill, search, set_bm25, worth
from bridge.cluster.connection import connect
from bridge.cluster.schema import Bm25
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
@click.option(
    "--bm25",
    "chosen",
    multiple=True,
    type=click.Tuple([click.FloatRange(min=0), click.FloatRange(0, 1)]),
    metavar="K1 B",
    default=[ANSERINI, LUCENE],
    help="Parameters; repeatable. By default those of published baselines and Lucene's.",
)
@click.option("--json", "as_json", is_flag=True, help="End with one JSON object.")
def command(
    folders: tuple[Path, ...], split: str, analyzer: str, chosen: tuple[tuple[float, float], ...], as_json: bool
) -> None:
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
            fill(client, _INDEX, collection.corpus, bm25=LUCENE, analyzer=analyzer)
            for bm25 in map(Bm25._make, chosen):
                set_bm25(client, _INDEX, bm25)
                for words, body_of in QUERIES.items():
                    rankings = search(client, _INDEX, judged.queries, body_of)
                    value = found[f"{bm25}; {words}"] = worth(judged, rankings)
                    click.echo(f"  {bm25!s:<14} {words:<29} {value:.3f}")
            client.indices.delete(index=_INDEX)
    if as_json:
        click.echo(json.dumps(figures))
