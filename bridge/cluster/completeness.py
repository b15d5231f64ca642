"""How well a companion matches the index that it stands beside: by all documents, or by a sample of many."""

from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

import msgspec
from opensearchpy import OpenSearch

from bridge.cluster import index as indices
from bridge.cluster.connection import IndexMissing, exchange
from bridge.errors import AnswerNotUnderstood
from bridge.profile import IndexProfile
from bridge.text import decode, digest_in_stamp, source_digest

SAMPLE = 1_000
"""Documents of each of the two indices that are compared."""

_SEED = 7


class Completeness(msgspec.Struct, frozen=True):
    """Of `sampled_documents` of the index, `missing` have no entry in the companion, and `stale` one of other texts; of
    `sampled_entries`, `orphaned` are of no document."""

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


def completeness(client: OpenSearch, companion: str, profile: IndexProfile, *, sample: int = SAMPLE) -> Completeness:
    """Compares a companion, whose profile is given, with its index, by `sample` documents of each at most.

    Raises:
        IndexMissing: there is no such index any longer.
        AnswerNotUnderstood: one of the two cannot be searched.
    """
    index = str(profile.beside)
    texts = {"includes": list(profile.text_fields)}
    documents = {
        hit.id: source_digest(bytes(hit.source), profile.text_fields)
        for hit in _sample(client, index, sample, _source=texts)
    }
    of_documents = {"query": {"ids": {"values": list(documents)}}}
    entries = _hits(
        client, companion, size=sample, **of_documents, _source=False, docvalue_fields=[profile.stamp_field]
    )
    made_of = {hit.id: "".join(map(digest_in_stamp, hit.fields.get(profile.stamp_field, []))) for hit in entries}
    sampled = [hit.id for hit in _sample(client, companion, sample, _source=False)]
    return Completeness(
        entries=indices.count(client, companion),
        sampled_documents=len(documents),
        missing=len(documents.keys() - made_of.keys()),
        stale=sum(made_of.get(doc_id, texts) != texts for doc_id, texts in documents.items()),
        sampled_entries=len(sampled),
        orphaned=len(set(sampled) - indices.present_ids(client, index, sampled)),
    )


class _Hit(msgspec.Struct):
    id: str = msgspec.field(name="_id")
    source: msgspec.Raw = msgspec.field(name="_source", default_factory=lambda: msgspec.Raw(b"{}"))
    fields: dict[str, list[str]] = {}


class _Answer(msgspec.Struct):
    class Hits(msgspec.Struct):
        hits: list[_Hit]

    hits: Hits


def _sample(client: OpenSearch, index: str, size: int, **more: Any) -> Sequence[_Hit]:
    by_chance = {"random_score": {"seed": _SEED, "field": "_seq_no"}, "boost_mode": "replace"}
    return _hits(client, index, size=size, query={"function_score": by_chance}, **more)


def _hits(client: OpenSearch, index: str, **body: Any) -> Sequence[_Hit]:
    answer = exchange(client, "POST", f"/{quote(index, safe='')}/_search", body=msgspec.json.encode(body))
    if answer.status == 404:
        raise IndexMissing(404, f"no such index [{index}]", {})
    try:
        return decode(answer.body, _Answer).hits.hits
    except msgspec.DecodeError as error:
        raise AnswerNotUnderstood(f"a search of {index} answered {answer.status}, no documents: {error}") from error
