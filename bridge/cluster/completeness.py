"""How well a companion matches the index that it stands beside: by all documents, or by a sample of many."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from opensearchpy import OpenSearch

from bridge.cluster import index as indices
from bridge.profile import IndexProfile

SAMPLE = 1_000
"""Documents of each of the two indices that are compared."""

_SEED = 7


class Completeness(msgspec.Struct, frozen=True):
    """Of `sampled_documents` of the index, `missing` have no entry in the companion, and `stale` have one of an earlier
    version; of `sampled_entries`, `orphaned` are of no document."""

    entries: int
    sampled_documents: int
    missing: int
    stale: int
    sampled_entries: int
    orphaned: int

    @property
    def is_whole(self) -> bool:
        """Whether nothing was amiss."""
        return not (self.missing or self.stale or self.orphaned)


def completeness(client: OpenSearch, companion: str, profile: IndexProfile) -> Completeness:
    """Compares a companion, whose profile is given, with its index.

    Raises:
        NotFoundError: there is no such index any longer.
    """
    index = str(profile.beside)
    fields = list(profile.version_fields)
    documents = {hit["_id"]: (hit["_seq_no"], hit["_primary_term"]) for hit in _sample(client, index)}
    entries = _of_ids(client, companion, list(documents), docvalue_fields=fields)
    versions = {hit["_id"]: tuple(hit.get("fields", {}).get(name, [None])[0] for name in fields) for hit in entries}
    sampled = [hit["_id"] for hit in _sample(client, companion)]
    return Completeness(
        entries=indices.count(client, companion),
        sampled_documents=len(documents),
        missing=len(documents.keys() - versions.keys()),
        stale=sum(versions.get(doc_id, version) != version for doc_id, version in documents.items()),
        sampled_entries=len(sampled),
        orphaned=len(set(sampled) - indices.present_ids(client, index, sampled)),
    )


def _sample(client: OpenSearch, index: str) -> Sequence[Mapping[str, Any]]:
    by_chance = {"random_score": {"seed": _SEED, "field": "_seq_no"}, "boost_mode": "replace"}
    body = {"size": SAMPLE, "query": {"function_score": by_chance}, "_source": False, "seq_no_primary_term": True}
    hits: Sequence[Mapping[str, Any]] = client.search(index=index, body=body)["hits"]["hits"]
    return hits


def _of_ids(client: OpenSearch, index: str, doc_ids: Sequence[str], **more: Any) -> Sequence[Mapping[str, Any]]:
    body = {"size": SAMPLE, "query": {"ids": {"values": list(doc_ids)}}, "_source": False, **more}
    hits: Sequence[Mapping[str, Any]] = client.search(index=index, body=body)["hits"]["hits"]
    return hits
