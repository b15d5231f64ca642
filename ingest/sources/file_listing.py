"""Which files a path, a glob, a URL or `-` names: local ones, those of object stores, and standard input."""

import glob
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bridge.errors import UsageError

STDIN = "-"

_SCHEME = "://"


def pyarrow_missing() -> UsageError:
    """What is said where an optional package would be needed."""
    return UsageError(
        "URLs and Parquet files need pyarrow, which is not installed: pip install 'opensearch-neural-bridge[parquet]'"
    )


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file to read. `pattern` names it alone, `name` is for messages, `identity` changes whenever its content may
    have; None where it can be read once only. `open` gives its bytes as they are, and raises `OSError`."""

    pattern: str
    name: str
    identity: str | None
    open: Callable[[], AbstractContextManager[Any]]


def source_files(patterns: Sequence[str]) -> list[SourceFile]:
    """The files that `patterns` name, in that order; a glob's files sorted by name.

    Raises:
        UsageError: a file does not exist, is a folder, cannot be reached, or a glob matches nothing.
    """
    return [file for pattern in patterns for file in _named(pattern)]


def _named(pattern: str) -> list[SourceFile]:
    if pattern == STDIN:
        return [SourceFile(STDIN, "stdin", None, lambda: nullcontext(sys.stdin.buffer))]
    if _SCHEME in pattern:
        from ingest.sources.object_stores import stored_files  # pyarrow is an optional package, and takes a while

        return stored_files(pattern)
    if glob.has_magic(pattern) and not Path(pattern).exists():
        found = sorted(path for path in glob.glob(pattern, recursive=True) if Path(path).is_file())
        if not found:
            raise UsageError(f"no file matches {pattern}: check the pattern, and that the shell left it alone")
        return [_local(path) for path in found]
    if not Path(pattern).exists():
        raise UsageError(f"source file {pattern} does not exist")
    if Path(pattern).is_dir():
        raise UsageError(f"source {pattern} is a folder: name its files, for example {pattern.rstrip('/')}/*.jsonl")
    return [_local(pattern)]


def _local(path: str) -> SourceFile:
    state = Path(path).stat()
    identity = f"{Path(path).resolve()} ({state.st_size} bytes, changed {state.st_mtime_ns})"
    return SourceFile(path, path, identity, lambda: Path(path).open("rb"))
