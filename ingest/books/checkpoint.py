"""How far a run got: what a later run need not do again.

The file is written whole or not at all (temporary file, fsync, rename), carries a checksum, and says to
which source, index and recipe it belongs. It is never guessed at: what does not fit is refused.
"""

import fcntl
import hashlib
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from bridge.errors import CheckpointUnusable, IngestError
from ingest.books.ledger import Ledger

_VERSION = 1

S = TypeVar("S", bound=msgspec.Struct)


class Checkpoint(msgspec.Struct, frozen=True):
    """The state of a run. `ledger.answered` items of the source, the first ones, have ended.

    `source`, `index` and `recipe` say what it belongs to. `dead_letters` is the name of the run's file and
    `dead_letters_bytes` how much of it counts. `restore` holds index settings that the run changed, with
    the values to give back.
    """

    run: str
    source: str
    index: str
    recipe: str
    ledger: Ledger
    dead_letters: str
    dead_letters_bytes: int = 0
    restore: dict[str, Any] = {}
    version: int = _VERSION

    def belongs_to(self, *, source: str, index: str, recipe: str) -> None:
        """Makes sure that a run may go on from here.

        Raises:
            CheckpointUnusable: it is of another source, index or recipe.
        """
        pairs = [("source", self.source, source), ("index", self.index, index), ("models", self.recipe, recipe)]
        for name, kept, asked in pairs:
            if kept != asked:
                raise CheckpointUnusable(
                    f"the checkpoint belongs to another {name} ({kept}; this run: {asked}): name another "
                    f"--state-folder, or begin anew with --from-start"
                )


def load(path: Path) -> Checkpoint | None:
    """Reads a checkpoint; None where there is none.

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
    """Reads what `save` wrote; None where there is nothing.

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
        return msgspec.json.decode(body, type=kind)
    except msgspec.DecodeError as error:
        raise CheckpointUnusable(
            f"checkpoint {path} was written by another version: {error}; use --from-start"
        ) from error


def save(path: Path, state: msgspec.Struct) -> None:
    """Replaces the checkpoint; the old one stays whole until the new one is safe.

    Raises:
        IngestError: the disk refuses it.
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


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Holds a state folder for one run; the lock goes with the process, however that ends.

    Raises:
        CheckpointUnusable: another run holds it, or the folder cannot be written.
    """
    path = folder / "lock"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = path.open("a+")
    except OSError as error:
        raise CheckpointUnusable(f"state folder {folder} cannot be written: {error.strerror}") from error
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
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        yield
