"""What the readers of file formats give: entries, each one JSON object or a named problem."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from bridge.records import SourcePosition
from ingest.sources.opening import SAMPLE_BYTES, Unreadable


@dataclass(frozen=True, slots=True)
class Entry:
    """One JSON object of a file, as bytes; `doc_id` and `routing` where the format holds them beside it."""

    position: SourcePosition
    body: bytes
    doc_id: str | None = None
    routing: str | None = None


def entries(name: str, numbered: Iterable[tuple[int, bytes]], max_bytes: int) -> Iterator[Entry | Unreadable]:
    """Numbered stretches of a file that hold one object each; one longer than `max_bytes` is a problem."""
    for number, body in numbered:
        position = SourcePosition(name, number)
        yield Entry(position, body) if len(body) <= max_bytes else too_large(position, body, max_bytes)


def too_large(position: SourcePosition, body: bytes, max_bytes: int) -> Unreadable:
    """What is said of a document that is longer than `max_bytes`."""
    reason = f"the document is longer than ingest.max_doc_bytes ({max_bytes:,})"
    return Unreadable(position, "document_too_large", reason, body[:SAMPLE_BYTES])
