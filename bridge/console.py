"""How a command shows itself while it works: steps with their times, and progress bars."""

import time
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.table import Column, Table
from rich.text import Text

LINE_EVERY_S = 10.0

TABLE_WIDTH = 160
"""Columns if the output is no terminal: nobody can read a folded table."""


def safe_text(text: object, *, lines: bool = False) -> str:
    """Text from documents, ids and errors as a terminal may show it: control characters are written as escapes
    (`\\x1b`), and so are those that turn the reading direction and lone surrogates.

    `lines` leaves line breaks and tabs as they are, for messages of several lines.
    """
    kept = _JOINERS + "\n\t" if lines else _JOINERS
    return "".join(
        character if character in kept or unicodedata.category(character) not in _UNSAFE else _escaped(character)
        for character in str(text)
    )


def safe_cell(text: object, *, lines: bool = False) -> Text:
    """The same for tables and consoles: brackets in it are no markup."""
    return Text(safe_text(text, lines=lines))


_UNSAFE = {"Cc", "Cf", "Cs", "Zl", "Zp"}
"""Unicode's categories: control, format, surrogate, line separator, paragraph separator."""


_JOINERS = "\u200c\u200d\u00ad"
"""Format characters that Persian, Indian scripts, emoji and hyphenated words need."""


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def wide_console(*, stderr: bool = False) -> Console:
    """A console as wide as its terminal, or as tables need it."""
    console = Console(stderr=stderr)
    return console if console.is_terminal else Console(stderr=stderr, width=TABLE_WIDTH)


def number_columns(*headings: str) -> list[Column]:
    """Columns of a table whose cells are numbers."""
    return [Column(heading, justify="right") for heading in headings]


class ShowProgress(Protocol):
    """Shows that `done` items are done, `of` so many if that is known by now."""

    def __call__(self, done: int, of: int | None = None, detail: str = "") -> None: ...


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:,.0f}/s" if speed else "–/s", style="progress.data.speed")


class Display:
    """Writes to one console; lines instead of bars if that is no terminal."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def say(self, text: str) -> None:
        """One line."""
        self._console.print(safe_cell(text), soft_wrap=True)

    def table(self, table: Table) -> None:
        """A table, as wide as the console."""
        self._console.print(table)

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        """A step: says that it begins, and how long it took."""
        started = time.perf_counter()
        with self._console.status(safe_cell(title)):
            if not self._console.is_terminal:
                self.say(f"{title} …")
            yield
        self.done(title, time.perf_counter() - started)

    def done(self, title: str, seconds: float) -> None:
        """A step that has ended."""
        line = Text.assemble(("✓", "green"), f" {safe_text(title)}  ", (f"{seconds:.1f} s", "dim"))
        self._console.print(line, soft_wrap=True)

    @contextmanager
    def progress(self, title: str, total: int | None = None) -> Iterator[ShowProgress]:
        """Shows how many of `total` items are done, with rate and time left: a bar on a terminal, else a line every ten
        seconds."""
        if not self._console.is_terminal:
            yield self._lines(title, total)
            return
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            _Rate(),
            TextColumn("{task.fields[detail]}", markup=False),
            TextColumn("time left"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=self._console, transient=True) as bars:
            task = bars.add_task(safe_text(title), total=total, detail="")
            yield lambda done, of=None, detail="": bars.update(task, completed=done, total=of, detail=safe_text(detail))

    def _lines(self, title: str, total: int | None) -> ShowProgress:
        started = last = time.perf_counter()

        def show(done: int, of: int | None = None, detail: str = "") -> None:
            nonlocal last
            now = time.perf_counter()
            if now - last >= LINE_EVERY_S and done:
                last = now
                rate, whole = done / (now - started), of or total
                parts = [f"{done:,} of {whole:,}" if whole else f"{done:,}", f"{rate:,.0f}/s"]
                parts += [f"{(whole - done) / rate:,.0f} s left"] if whole else []
                self.say(f"  {title}: {', '.join(parts)}{'; ' if detail else ''}{detail}")

        return show
