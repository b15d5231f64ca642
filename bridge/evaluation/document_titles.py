"""The beginning of documents' texts, for people who look at rankings."""

from collections.abc import Sequence

from opensearchpy import OpenSearch

from bridge.text.passages import enriched_text, field_texts

_SHOWN_CHARS = 50


def document_titles(client: OpenSearch, index: str, doc_ids: Sequence[str], fields: Sequence[str]) -> dict[str, str]:
    """Some words by doc_id; documents that are gone, or that routing hides, are left out."""
    if not doc_ids:
        return {}
    answer = client.mget(index=index, body={"ids": list(doc_ids)}, params={"_source_includes": ",".join(fields)})
    titles = {}
    for document in answer["docs"]:
        if document.get("found"):
            text = " ".join(enriched_text(field_texts(document["_source"], fields)).split())
            titles[document["_id"]] = text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}…"
    return titles
