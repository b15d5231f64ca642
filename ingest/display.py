"""How a run shows itself on stderr: a bar on a terminal, else a line every ten seconds."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from ingest.books.report import Progress as IngestProgress

_LINE_EVERY_S = 10.0


@contextmanager
def shown(title: str, *, quiet: bool = False) -> Iterator[Callable[[IngestProgress], None]]:
    """Shows the progress that it is called with; nothing where `quiet`."""
    if quiet:
        yield lambda _: None
    elif sys.stderr.isatty():
        with _bar(title) as show:
            yield show
    else:
        yield _Lines(title)


@contextmanager
def _bar(title: str) -> Iterator[Callable[[IngestProgress], None]]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(show_speed=True),
        TextColumn("{task.fields[detail]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task(title, total=None, detail="")

        def show(progress: IngestProgress) -> None:
            bars.update(task, completed=progress.answered, total=progress.total, detail=_detail(progress))

        yield show


class _Lines:
    """One line every ten seconds: for log files."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._next = time.monotonic() + _LINE_EVERY_S

    def __call__(self, progress: IngestProgress) -> None:
        if time.monotonic() >= self._next:
            self._next += _LINE_EVERY_S
            of = f" of {progress.total:,}" if progress.total else ""
            print(f"{self._title}: {progress.answered:,}{of} documents, {_detail(progress)}", file=sys.stderr)  # noqa: T201


def _detail(progress: IngestProgress) -> str:
    return (
        f"{progress.rate:.1f}/s; read {progress.read:,}, expanded {progress.expanded:,}, embedded {progress.embedded:,}"
    )
