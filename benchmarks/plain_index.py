"""A collection's words alone in an index: what BM25 finds there by itself, before any model."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray
from opensearchpy import OpenSearch

from bridge.cluster.connection import exchange
from bridge.cluster.schema import Bm25
from bridge.errors import AnswerNotUnderstood
from bridge.evaluation.application_query import BodyOf
from bridge.evaluation.collections import read_documents
from bridge.evaluation.judged_queries import JudgedQueries
from bridge.evaluation.measures import evaluate
from bridge.records import Hit, RankedHit
from bridge.search import legs
from bridge.search.response import leg_rankings

MEASURE = "nDCG@10"

BOTH = "title_and_text"
"""The field that holds the two together, as most published BM25 figures have them."""

_AT_ONCE = 500

Entry = TypeVar("Entry")


LUCENE = Bm25()
"""What OpenSearch and Elasticsearch take where a mapping says nothing."""

ANSERINI = Bm25(0.9, 0.4)
"""What published baselines mostly use (Yang, Fang and Lin 2017, "Anserini": https://doi.org/10.1145/3077136.3080721)."""


def fill(client: OpenSearch, index: str, corpus: Path, *, bm25: Bm25, analyzer: str) -> int:
    """Makes the index and writes every document of the corpus; returns how many.

    Raises:
        AnswerNotUnderstood: the cluster refused documents.
    """
    text = {"type": "text", "analyzer": analyzer}
    client.indices.create(
        index=index,
        body={
            "settings": {
                "number_of_shards": 1,
                "number_of_replicas": 0,
                **bm25.settings(),
            },
            "mappings": {
                "properties": {"title": text | {"copy_to": BOTH}, "text": text | {"copy_to": BOTH}, BOTH: text}
            },
        },
    )
    n_written = 0
    for batch in _batches(read_documents(corpus)):
        lines = [
            line
            for doc_id, title, body in batch
            for line in ({"index": {"_id": doc_id}}, {"title": title, "text": body})
        ]
        bulk = b"".join(msgspec.json.encode(line) + b"\n" for line in lines)
        if client.bulk(index=index, body=bulk, params={"filter_path": "errors"})["errors"]:
            raise AnswerNotUnderstood(f"index {index}: documents were refused, so the figures would mean nothing")
        n_written += len(batch)
    client.indices.refresh(index=index)
    return n_written


def set_bm25(client: OpenSearch, index: str, bm25: Bm25) -> None:
    """Scores the words of a filled index so: its documents stay as they are."""
    client.indices.close(index=index)
    client.indices.put_settings(index=index, body=bm25.settings())
    client.indices.open(index=index)
    client.cluster.health(index=index, params={"wait_for_status": "yellow"})


def search(client: OpenSearch, index: str, queries: Mapping[str, str], body_of: BodyOf) -> dict[str, Sequence[Hit]]:
    """The hits of every query by query_id, best first.

    Raises:
        AnswerNotUnderstood: the cluster refused a query.
    """
    found: dict[str, Sequence[Hit]] = {}
    for batch in _batches(iter(queries.items())):
        bodies = [{**body_of(text), "_source": False} for _, text in batch]
        answer = exchange(client, "POST", "/_msearch", body=legs.msearch(bodies, {"index": index}))
        for query_id, hits in leg_rankings(answer.body, [query_id for query_id, _ in batch]).items():
            if isinstance(hits, str):
                raise AnswerNotUnderstood(f"index {index}, query {query_id}: {hits}")
            found[query_id] = hits
    return found


def worth(judged: JudgedQueries, rankings: Mapping[str, Sequence[Hit | RankedHit]]) -> float:
    """The mean of `values`."""
    return round(float(values(judged, rankings).mean()), 4)


def values(judged: JudgedQueries, rankings: Mapping[str, Sequence[Hit | RankedHit]]) -> NDArray[np.float64]:
    """`MEASURE` of each query: float64, (n_queries,); a query that is a document itself does not find itself."""
    run = {
        query_id: [hit.doc_id for hit in hits if hit.doc_id != query_id or query_id not in judged.own_documents]
        for query_id, hits in rankings.items()
    }
    return evaluate(judged.qrels, run, [MEASURE]).values[MEASURE]


def _batches(entries: Iterator[Entry]) -> Iterator[list[Entry]]:
    while batch := list(islice(entries, _AT_ONCE)):
        yield batch
