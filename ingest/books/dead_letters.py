"""What could never be written, kept with its reason until an operator has dealt with it."""

import base64
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from bridge.errors import IngestError
from bridge.records import Document
from ingest.books.ledger import Failure
from ingest.sources.source import SourceItem


class DeadLetter(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line of the file. `document` is the body as it was read: text, or base64 where it is no UTF-8.
    `partial`: only the fields that were read of a document that is in the index."""

    index: str
    position: str
    error: dict[str, Any]
    at: str
    id: str | None = None
    routing: str | None = None
    document: str | None = None
    document_base64: str | None = None
    partial: bool = False


class DeadLetters:
    """An append-only file of JSON lines; nothing is acknowledged before it is on disk."""

    def __init__(self, path: Path, index: str, *, keep_bytes: int = 0, partial: bool = False) -> None:
        """Opens the file; what lies behind its first `keep_bytes` belongs to no answered document and goes.
        `partial`: see `DeadLetter`.

        Raises:
            IngestError: the file cannot be written.
        """
        self.path = path
        self._index = index
        self._partial = partial
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("r+b" if path.exists() else "w+b")
            self._file.truncate(keep_bytes)
            self._file.seek(keep_bytes)
        except OSError as error:
            raise self._unwritable(error) from error

    def close(self) -> None:
        """Ends writing; a file without letters goes."""
        empty = self.size == 0
        self._file.close()
        if empty:
            self.path.unlink(missing_ok=True)

    @property
    def size(self) -> int:
        """Bytes that are safely on disk after `flush`."""
        return self._file.tell()

    def add(self, item: SourceItem, failure: Failure) -> None:
        """Keeps an item with the reason; not yet safe.

        Raises:
            IngestError: the file cannot be written.
        """
        raw = item.body if isinstance(item, Document) else item.raw
        text: str | None
        try:
            text, encoded = raw.decode(), None
        except UnicodeDecodeError:
            text, encoded = None, base64.b64encode(raw).decode()
        letter = DeadLetter(
            index=self._index,
            position=str(item.position),
            error={"type": failure.kind, "reason": failure.reason, "status": failure.status},
            at=datetime.now(UTC).isoformat(timespec="seconds"),
            id=item.doc_id,
            routing=item.routing if isinstance(item, Document) else None,
            document=text,
            document_base64=encoded,
            partial=self._partial,
        )
        try:
            self._file.write(msgspec.json.encode(letter) + b"\n")
        except OSError as error:
            raise self._unwritable(error) from error

    def flush(self) -> None:
        """Makes what was added safe.

        Raises:
            IngestError: the disk refuses it.
        """
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise self._unwritable(error) from error

    def _unwritable(self, error: OSError) -> IngestError:
        return IngestError(
            f"dead letters {self.path} cannot be written ({error.strerror}): free the disk or name another "
            f"--state-folder; nothing that is not on disk was acknowledged"
        )


def read_dead_letters(path: Path) -> Iterator[DeadLetter]:
    """The letters of a file, oldest first.

    Raises:
        IngestError: the file cannot be read, or a line of it is no dead letter.
    """
    decode = msgspec.json.Decoder(DeadLetter).decode
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                try:
                    yield decode(line)
                except msgspec.DecodeError as error:
                    raise IngestError(f"{path}:{number} is no dead letter: {error}") from error
    except OSError as error:
        raise IngestError(f"dead letters {path} cannot be read: {error.strerror}") from error
