"""Sources give their items part after part, and all of them are counted."""

from bridge.records import Document, SourcePosition
from ingest.sources.source import DocumentsInMemory


def test_documents_in_memory_are_items_in_order() -> None:
    documents = [Document(str(i), b"{}", {}, SourcePosition("memory", i)) for i in range(3)]
    source = DocumentsInMemory(documents)
    assert (list(source.items(1)), source.total()) == (documents[1:], 3)
