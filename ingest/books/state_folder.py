"""The files of a run in its state folder: lock, checkpoint and dead letters.

A checkpoint is written whole or not at all (temporary file, fsync, rename), has a checksum, and names the source, index
and recipe that it belongs to. One that does not fit is refused. Dead letters are documents that could not be written,
with their reasons, for an operator to deal with.
"""

import base64
import fcntl
import hashlib
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from bridge.errors import CheckpointUnusable, IngestError
from bridge.records import Document
from bridge.text import decode
from ingest.books.ledger import Failure, Ledger
from ingest.sources.source import SourceItem

_VERSION = 1

S = TypeVar("S", bound=msgspec.Struct)


class Checkpoint(msgspec.Struct, frozen=True):
    """The state of a run: the first `ledger.answered` items of the source have ended.

    It belongs to `source`, `index` and `recipe`. `dead_letters` is the name of the run's file, of which the first
    `dead_letters_bytes` count. `mark` is that of the last item that has one: see `bridge.records.SourcePosition`.
    """

    run: str
    source: str
    index: str
    recipe: str
    ledger: Ledger
    dead_letters: str
    dead_letters_bytes: int = 0
    mark: str | None = None
    version: int = _VERSION

    def belongs_to(self, *, source: str, index: str, recipe: str) -> None:
        """Checks that a run may go on from here.

        Raises:
            CheckpointUnusable: it belongs to another source, index or recipe.
        """
        pairs = [("source", self.source, source), ("index", self.index, index), ("models", self.recipe, recipe)]
        for name, saved, wanted in pairs:
            if saved != wanted:
                raise CheckpointUnusable(
                    f"the checkpoint belongs to another {name} ({saved}; this run: {wanted}): name another "
                    f"--state-folder, or begin anew with --from-start"
                )


class Watermark(msgspec.Struct, frozen=True):
    """How far the complete runs of a source have come, which the next one begins at: see `Checkpoint`. `ledger` is
    that of the last of them."""

    source: str
    index: str
    recipe: str
    mark: str
    ledger: Ledger


def load(path: Path) -> Checkpoint | None:
    """Reads a checkpoint; None if there is none.

    Raises:
        CheckpointUnusable: the file is damaged, or written by a newer version.
    """
    checkpoint = load_state(path, Checkpoint)
    if checkpoint is not None and checkpoint.version != _VERSION:
        raise CheckpointUnusable(
            f"checkpoint {path} has version {checkpoint.version}, this program knows {_VERSION}: use --from-start"
        )
    return checkpoint


def load_state(path: Path, kind: type[S]) -> S | None:
    """Reads a file that `save` wrote; None if there is none.

    Raises:
        CheckpointUnusable: the file is damaged, or holds something else.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CheckpointUnusable(f"checkpoint {path} cannot be read: {error.strerror}") from error
    digest, _, body = content.partition(b"\n")
    if hashlib.sha256(body).hexdigest().encode() != digest:
        raise CheckpointUnusable(
            f"checkpoint {path} is damaged (checksum): begin anew with --from-start; documents that are written "
            f"already are recognised"
        )
    try:
        return decode(body, kind)
    except msgspec.DecodeError as error:
        raise CheckpointUnusable(
            f"checkpoint {path} was written by another version: {error}; use --from-start"
        ) from error


def save(path: Path, state: msgspec.Struct) -> None:
    """Replaces a file; the old one stays whole until the new one is safe.

    Raises:
        IngestError: the disk is full or refuses it.
    """
    body = msgspec.json.encode(state)
    fresh = path.with_suffix(".new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with fresh.open("wb") as file:
            file.write(hashlib.sha256(body).hexdigest().encode() + b"\n" + body)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise IngestError(
            f"checkpoint {path} cannot be written ({error.strerror}): free the disk or name another "
            f"--state-folder; the checkpoint before it is intact"
        ) from error


def remove(path: Path) -> None:
    """Removes a file that `save` wrote, if it is there.

    Raises:
        IngestError: the folder refuses it.
    """
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise IngestError(
            f"checkpoint {path} cannot be removed ({error.strerror}), though the run is complete: remove it, or name "
            f"another --state-folder next time"
        ) from error


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Locks a state folder for one run; the lock ends with the process, however that ends.

    Raises:
        CheckpointUnusable: another run has locked it, or the folder cannot be written.
    """
    path = folder / "lock"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = path.open("a+")
    except OSError as error:
        raise CheckpointUnusable(
            f"state folder {folder} cannot be written ({error.strerror}): free the disk, or name another --state-folder"
        ) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise CheckpointUnusable(
                f"state folder {folder} is in use by {file.read().strip() or 'another run'}: wait for it, or name "
                f"another --state-folder"
            ) from error
        file.truncate(0)
        # The lock holds without its text, which a full disk does not take.
        with suppress(OSError), path.open("w") as text:
            text.write(f"process {os.getpid()} on {socket.gethostname()}")
        yield


class DeadLetter(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line of the file. `document` is the body as it was read, or `document_base64` if it is not UTF-8. `partial`:
    it has only the fields that were read of a document in the index."""

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
    """An append-only file of JSON lines."""

    def __init__(self, path: Path, index: str, *, keep_bytes: int = 0, partial: bool = False) -> None:
        """Opens the file and removes everything after its first `keep_bytes`, which no checkpoint covers. `partial`:
        see `DeadLetter`.

        Raises:
            IngestError: the file cannot be written.
        """
        self.path = path
        self._index = index
        self._partial = partial
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("r+b" if path.exists() else "w+b")
            # Somebody may have taken letters away meanwhile: nothing stands in for them.
            self._file.truncate(min(keep_bytes, self._file.seek(0, os.SEEK_END)))
            self._file.seek(0, os.SEEK_END)
        except OSError as error:
            raise self._unwritable(error) from error

    def close(self) -> None:
        """Closes the file, and removes it if it is empty."""
        empty = self.size == 0
        # Letters that a full disk did not take belong to no booked batch: whoever added them knows.
        with suppress(OSError):
            self._file.close()
        if empty:
            with suppress(OSError):
                self.path.unlink()

    @property
    def size(self) -> int:
        """Bytes that are on disk after `flush`."""
        return self._file.tell()

    def add(self, item: SourceItem, failure: Failure) -> None:
        """Appends an item with the reason; it is on disk after `flush`.

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
        """Writes added letters to disk.

        Raises:
            IngestError: the disk is full or refuses it.
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
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                try:
                    yield decode(line, DeadLetter)
                except msgspec.DecodeError as error:
                    raise IngestError(f"{path}:{number} is no dead letter: {error}") from error
    except OSError as error:
        raise IngestError(f"dead letters {path} cannot be read: {error.strerror}") from error
