"""Does an application number the versions of its documents itself (external versions)?

Kafka Connect, Debezium or JPA do, with offsets, log positions or counters. Any write of ours raises a document's
version, and the application's next update and delete, which carry its own number, are refused with 409: such an index
must not be enriched in place.

Without external versions, each operation of a shard takes the next sequence number and raises the version of one
document by one. So no version is higher than its document's sequence number plus one, and all versions together are no
more than the shards' operations.
"""

from typing import Any

from opensearchpy import OpenSearch

from bridge.cluster.index import IndexState
from bridge.cluster.shard_progress import index_progress
from bridge.errors import AccessDenied, IndexUnsuitable
from bridge.settings import IngestSettings

_SAMPLE = 500
_USUAL = 0.9
"""Share of the sampled versions that count: a few documents that are written all the time say nothing of the rest."""
_MARGIN = 1.25


def refuse_external_versions(client: OpenSearch, state: IndexState, settings: IngestSettings) -> None:
    """Keeps an index from being enriched in place if `external_versions` finds an obstacle.

    Raises:
        IndexUnsuitable: it does.
    """
    if (obstacle := external_versions(client, state, settings)) is not None:
        raise refusal(state.name, obstacle)


def refusal(index: str, obstacle: str) -> IndexUnsuitable:
    """The error for an index that must not be enriched in place."""
    return IndexUnsuitable(
        f"index {index} cannot be enriched in place: {obstacle}; enrich it beside with `neural-bridge backfill {index} "
        f"--beside`, after `neural-bridge undo {index}` if documents are enriched already, or use --external-versions "
        f"no (ingest.external_versions) if no application writes with versions of its own"
    )


def external_versions(client: OpenSearch, state: IndexState, settings: IngestSettings) -> str | None:
    """Why documents of an index must not be written in place, as one sentence; None if nothing speaks against it.

    Raises:
        IndexUnsuitable: the index is gone or closed.
    """
    if settings.external_versions == "no":
        return None
    if settings.external_versions == "yes":
        return _obstacle("ingest.external_versions is yes")
    n_documents = int(client.count(index=state.name)["count"])
    if not n_documents:
        return None
    oldest = _hits(client, state, {"sort": [{"_seq_no": "asc"}]})
    chosen = {"query": {"function_score": {"random_score": {"seed": 0, "field": "_seq_no"}}}}
    at_random = _hits(client, state, chosen)
    for hit in (*oldest, *at_random):
        if is_external(hit["_version"], hit["_seq_no"]):
            return version_obstacle(hit["_id"], hit["_version"], hit["_seq_no"])
    operations = _operations(client, state)
    versions = sorted(hit["_version"] for hit in at_random)
    if operations is None or not versions:
        return None
    usual = sum(versions[: round(_USUAL * len(versions))]) / len(versions) * n_documents
    if sum(versions) > operations or (len(versions) == _SAMPLE and usual > _MARGIN * operations):
        return _obstacle(
            f"the versions of {len(versions):,} sampled documents add up to {sum(versions):,}, and the index has "
            f"carried out {operations:,} operations on {n_documents:,} documents"
        )
    return None


def is_external(version: int, seq_no: int) -> bool:
    """Whether a document can only have this version because an application chose it."""
    return version > seq_no + 1 or version == 0


def version_obstacle(doc_id: str, version: int, seq_no: int) -> str:
    """The obstacle that one document is."""
    return _obstacle(f"document {doc_id} has version {version:,} at sequence number {seq_no:,}")


def _obstacle(evidence: str) -> str:
    return (
        f"its documents have external versions ({evidence}), which an update in place raises: the application's next "
        f"writes and deletes would be refused with 409"
    )


def _hits(client: OpenSearch, state: IndexState, body: dict[str, Any]) -> list[dict[str, Any]]:
    size = min(_SAMPLE, int(state.settings.get("max_result_window", _SAMPLE)))
    wanted = {"size": size, "version": True, "seq_no_primary_term": True, "_source": False}
    hits: list[dict[str, Any]] = client.search(index=state.name, body={**wanted, **body})["hits"]["hits"]
    return hits


def _operations(client: OpenSearch, state: IndexState) -> int | None:
    """The number of operations that an index's shards have carried out; None if it is not known."""
    if "resize" in state.settings or "shrink" in state.settings:
        return None  # Its documents come from another index's shards, their sequence numbers with them.
    try:
        shards = index_progress(client, state.name).shards
    except AccessDenied:
        return None
    whole = len(shards) == int(state.settings.get("number_of_shards", 1))
    return sum(shard.last + 1 for shard in shards.values()) if whole else None
