"""What the tests of sources share: a file is written, read, and its items told apart."""

from pathlib import Path

from bridge.records import Document
from ingest.sources.documents import FieldChoice
from ingest.sources.files import FileDocuments, Format
from ingest.sources.source import SourceItem

FIELDS = FieldChoice(["title", "text"])
LIMIT = 10_000


def read(
    file: Path,
    fields: FieldChoice = FIELDS,
    *,
    file_format: Format = "auto",
    max_doc_bytes: int = LIMIT,
    skip: int = 0,
) -> list[SourceItem]:
    """The items of one file but the first `skip`."""
    return list(FileDocuments([str(file)], fields, max_doc_bytes=max_doc_bytes, file_format=file_format).items(skip))


def outcome(item: SourceItem) -> tuple[int, str]:
    """Where an item is, and its id, or the kind of problem that it is."""
    return item.position.offset, item.doc_id if isinstance(item, Document) else item.kind


def written(folder: Path, name: str, content: bytes) -> Path:
    """A file with this content."""
    (folder / name).write_bytes(content)
    return folder / name


def bodies(items: list[SourceItem]) -> list[bytes]:
    """The bodies of the documents among these items."""
    return [item.body for item in items if isinstance(item, Document)]
