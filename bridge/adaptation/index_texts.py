"""The texts of an index, as models read them: a sample of its documents, and single ones."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from threading import Event
from typing import Any

from opensearchpy import OpenSearch

from bridge.cluster.index import IndexState
from bridge.profile import IndexProfile
from bridge.records import Document, Passage
from bridge.text import enriched_text, field_texts
from ingest.sources.index import IndexDocuments
from ingest.writing.pace import RetryLimits

MAX_DOCUMENTS = 10_000
"""What one search may return, where an index has no other limit."""

_BY_ID = 500


@dataclass(frozen=True, slots=True)
class IndexedText:
    """A document's texts: its fields in the profile's order, all of them as one text, and that text's passages."""

    doc_id: str
    fields: Sequence[str]
    text: str
    passages: Sequence[str]


class IndexTexts:
    """Reads documents of one index that have any text."""

    def __init__(
        self, client: OpenSearch, state: IndexState, profile: IndexProfile, split: Callable[[str], Sequence[Passage]]
    ) -> None:
        self._client = client
        self._state = state
        self._names = profile.text_fields
        self._split = split

    def sample(self, n_documents: int) -> list[IndexedText]:
        """At most `n_documents`, chosen at random, the same ones while the index does not change.

        Raises:
            AnswerNotUnderstood, ClusterError: as `IndexDocuments.items` says.
        """
        source = IndexDocuments(
            self._client,
            self._state.name,
            self._names,
            text_fields=self._names,
            retry=RetryLimits(),
            stopped=Event(),
        )
        found = (item for item in source.sample(min(n_documents, MAX_DOCUMENTS)) if isinstance(item, Document))
        return self._with_text((document.doc_id, document.texts) for document in found)

    def by_id(self, doc_ids: Sequence[str]) -> list[IndexedText]:
        """Those of the named documents that are there; whatever their routing, so by a search."""
        found: list[dict[str, Any]] = []
        for start in range(0, len(doc_ids), _BY_ID):
            wanted = list(doc_ids[start : start + _BY_ID])
            body = {"query": {"ids": {"values": wanted}}, "size": len(wanted), "_source": self._names}
            found += self._client.search(index=self._state.name, body=body)["hits"]["hits"]
        return self._with_text((hit["_id"], field_texts(hit["_source"], self._names)) for hit in found)

    def _with_text(self, found: Iterable[tuple[str, Mapping[str, str]]]) -> list[IndexedText]:
        indexed = []
        for doc_id, texts in found:
            if text := enriched_text(texts):
                passages = [passage.text for passage in self._split(text)]
                indexed.append(IndexedText(doc_id, list(texts.values()), text, passages))
        return indexed
