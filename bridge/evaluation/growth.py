"""Grows a collection to any size with synthetic documents, to measure how latency grows.

Each synthetic document is made of two real ones: the beginning of one text and the end of the other, predicted queries
of both, and the vectors half-way between. Good for timings; the rankings mean nothing.
"""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np
from opensearchpy import OpenSearch, TransportError, helpers

from bridge.cluster import index as indices
from bridge.cluster.companion import copied_settings
from bridge.cluster.connection import capabilities
from bridge.cluster.dialects import components, dialect_of
from bridge.errors import ClusterBlocked
from bridge.profile import IndexProfile
from ingest.runs.ingest import tuned_for_load

SEED = 11

_MOST_PARENTS = 20_000


def grow(
    client: OpenSearch,
    source: str,
    target: str,
    profile: IndexProfile,
    *,
    n_documents: int,
    on_written: Callable[[int], object],
) -> None:
    """Fills `target`, a new index like `source`, with all documents of `source` and with synthetic ones.

    Raises:
        ClusterBlocked: the cluster refused documents.
    """
    like = indices.look(client, source)
    settings = {**copied_settings(like.settings), **dialect_of(capabilities(client)).vector_settings()}
    indices.create_index(client, target, {"settings": settings, "mappings": like.mapping})
    parents = [hit["_source"] for hit in islice(helpers.scan(client, index=source, size=500), _MOST_PARENTS)]
    grown = _grown(parents, profile, n_documents)
    actions = ({"_index": target, "_id": doc_id, "_source": document} for doc_id, document in grown)
    refused = f"index {target} refused synthetic documents: give the node more room (BRIDGE_NODE__HEAP_MB, disk)"
    with tuned_for_load(client, target, is_empty=True):
        # Writes again what a busy node refused (429).
        done = helpers.streaming_bulk(
            client, actions, chunk_size=250, raise_on_error=False, max_retries=6, initial_backoff=1
        )
        try:
            for written, (ok, item) in enumerate(done, start=1):
                if not ok:
                    raise ClusterBlocked(f"{refused}: {item['index'].get('error')}")
                on_written(written)
        except TransportError as error:
            raise ClusterBlocked(f"{refused}: {error}") from error
    client.indices.refresh(index=target)
    client.indices.forcemerge(index=target, max_num_segments=1, request_timeout=7200)


def _grown(
    parents: Sequence[Mapping[str, Any]], profile: IndexProfile, n_documents: int
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    chance = random.Random(SEED)
    for n, parent in enumerate(parents[:n_documents]):
        yield f"real-{n}", parent
    for n in range(len(parents), n_documents):
        yield f"synthetic-{n}", crossed(chance.choice(parents), chance.choice(parents), profile)


def crossed(first: Mapping[str, Any], second: Mapping[str, Any], profile: IndexProfile) -> dict[str, Any]:
    """One document of two, each enriched for `profile`. The last text field is mixed; all other fields are those of the
    first document."""
    field = profile.text_fields[-1]
    beginning, end = str(first.get(field, "")).split(), str(second.get(field, "")).split()
    text = " ".join([*beginning[: len(beginning) // 2], *end[len(end) // 2 :]])
    ours, others = dict(first.get(profile.object_field, {})), second.get(profile.object_field, {})
    queries = [*ours.get("predicted_queries", [])[:2], *others.get("predicted_queries", [])[:1]]
    if queries:
        ours["predicted_queries"] = queries
    if "embedding" in ours and "embedding" in others:
        ours["embedding"] = _half_way(ours["embedding"], others["embedding"], profile)
    if ours.get("passages") and others.get("passages"):
        ours["passages"] = [
            {**one, "embedding": _half_way(one["embedding"], other["embedding"], profile)}
            for one, other in zip(ours["passages"], others["passages"], strict=False)
        ]
    return {**first, field: text, profile.object_field: ours}


def _half_way(one: Sequence[float], other: Sequence[float], profile: IndexProfile) -> list[float]:
    """The vector half-way between two, in the index's encoding; the first one if they are opposite."""
    mean = np.asarray(one, dtype=np.float64) + np.asarray(other, dtype=np.float64)
    length = float(np.linalg.norm(mean))
    return list(one) if length < 1e-6 else components(profile, [round(float(value), 6) for value in mean / length])
