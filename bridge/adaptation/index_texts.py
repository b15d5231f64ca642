"""Reads the texts of an index as models see them: a random sample, or documents by id."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from threading import Event
from typing import Any

from opensearchpy import OpenSearch

from bridge.profile import IndexProfile
from bridge.records import Document, Passage
from bridge.text import enriched_text, field_texts
from ingest.sources.index import IndexDocuments
from ingest.writing.pace import RetryLimits

MAX_DOCUMENTS = 10_000
"""The default limit of one search (`index.max_result_window`)."""

_BY_ID = 500


@dataclass(frozen=True, slots=True)
class IndexedText:
    """A document's texts: its fields in the profile's order, all of them joined, and the passages of the joined
    text."""

    doc_id: str
    fields: Sequence[str]
    text: str
    passages: Sequence[str]


class IndexTexts:
    """Reads documents of one index, without those that have no text."""

    def __init__(
        self, client: OpenSearch, index: str, profile: IndexProfile, split: Callable[[str], Sequence[Passage]]
    ) -> None:
        self._client = client
        self._index = index
        self._names = profile.text_fields
        self._split = split

    def sample(self, n_documents: int) -> list[IndexedText]:
        """At most `n_documents` random documents, the same ones while the index does not change.

        Raises:
            AnswerNotUnderstood, ClusterError: as raised by `IndexDocuments.items`.
        """
        source = IndexDocuments(
            self._client,
            self._index,
            self._names,
            text_fields=self._names,
            retry=RetryLimits(),
            stopped=Event(),
        )
        found = (item for item in source.sample(min(n_documents, MAX_DOCUMENTS)) if isinstance(item, Document))
        return self._with_text((document.doc_id, document.texts) for document in found)

    def by_id(self, doc_ids: Sequence[str]) -> list[IndexedText]:
        """The documents of these ids that exist. A search, because `_mget` would need their routing."""
        found: list[dict[str, Any]] = []
        for start in range(0, len(doc_ids), _BY_ID):
            wanted = list(doc_ids[start : start + _BY_ID])
            body = {"query": {"ids": {"values": wanted}}, "size": len(wanted), "_source": self._names}
            found += self._client.search(index=self._index, body=body)["hits"]["hits"]
        return self._with_text((hit["_id"], field_texts(hit["_source"], self._names)) for hit in found)

    def _with_text(self, found: Iterable[tuple[str, Mapping[str, str]]]) -> list[IndexedText]:
        indexed = []
        for doc_id, texts in found:
            if text := enriched_text(texts):
                passages = [passage.text for passage in self._split(text)]
                indexed.append(IndexedText(doc_id, list(texts.values()), text, passages))
        return indexed
