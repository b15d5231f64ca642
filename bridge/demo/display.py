"""What the demo shows: steps with their times, progress bars, two rankings side by side, the measures."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from bridge.demo.comparison import Comparison
from bridge.demo.measurement import StageResult
from bridge.evaluation.known_items import KnownItems

LINE_EVERY_S = 10.0
SHOWN_HITS = 3

STAGE_TITLES = {
    "lexical": "BM25 alone",
    "expansion": "+ predicted queries",
    "vector": "vectors alone",
    "hybrid": "both, fused",
    "rerank": "… and reranked",
}


class _Rate(ProgressColumn):
    """Items per second so far."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:,.0f}/s" if speed else "–/s", style="progress.data.speed")


class Display:
    """Writes to one console; where that is no terminal, lines instead of bars."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def say(self, text: str) -> None:
        """One line, in rich's markup."""
        self._console.print(text)

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        """A step of the demo: says that it begins, and how long it took."""
        started = time.perf_counter()
        with self._console.status(title):
            if not self._console.is_terminal:
                self.say(f"{title} …")
            yield
        self.done(title, time.perf_counter() - started)

    def done(self, title: str, seconds: float) -> None:
        """A step that has ended."""
        self.say(f"[green]✓[/] {title}  [dim]{seconds:.1f} s[/]")

    @contextmanager
    def progress(self, title: str, total: int) -> Iterator[Callable[[int], None]]:
        """A progress bar with rate and time left; call what is given with how many are done."""
        if not self._console.is_terminal:
            yield self._lines(title, total)
            return
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            _Rate(),
            TextColumn("time left"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=self._console, transient=True) as bars:
            task = bars.add_task(title, total=total)
            yield lambda done: bars.update(task, completed=done)

    def _lines(self, title: str, total: int) -> Callable[[int], None]:
        started = last = time.perf_counter()

        def show(done: int) -> None:
            nonlocal last
            now = time.perf_counter()
            if now - last >= LINE_EVERY_S and done:
                last = now
                rate = done / (now - started)
                self.say(f"  {title}: {done:,} of {total:,}, {rate:,.0f}/s, {(total - done) / rate:,.0f} s left")

        return show

    def comparisons(self, comparisons: Sequence[Comparison]) -> None:
        """The first hits of plain BM25 and of the bridge, and which leg knew what."""
        table = Table(title="The same search, without the bridge and through it")
        for heading in (
            "what somebody types",
            "plain BM25",
            "through the bridge",
            "ranks by leg, cross-encoder's score",
        ):
            table.add_column(heading, overflow="fold")
        for comparison in comparisons:
            for row in range(SHOWN_HITS):
                hit = comparison.bridged[row] if row < len(comparison.bridged) else None
                table.add_row(
                    comparison.question if row == 0 else "",
                    comparison.plain[row] if row < len(comparison.plain) else "–",
                    hit.doc_id if hit else "–",
                    hit.contributions() if hit else "",
                )
            table.add_section()
        self._console.print(table)

    def measures(self, results: Sequence[StageResult], items: KnownItems) -> None:
        """Effectiveness by stage, with 95 % intervals; p against BM25 alone."""
        other_words = sum(question.vocabulary == "other" for question in items.questions)
        table = Table(title="What each stage is worth")
        table.add_column("stage")
        for heading in ("MRR@10 [95 %]", "recall@10 [95 %]", "MRR@10, other words", "p (MRR)", "median ms"):
            table.add_column(heading, justify="right")
        for result in results:
            mrr, recall = result.mrr, result.recall
            table.add_row(
                STAGE_TITLES[result.stage],
                f"{mrr.mean:.3f} [{mrr.low:.3f}, {mrr.high:.3f}]",
                f"{recall.mean:.3f} [{recall.low:.3f}, {recall.high:.3f}]",
                f"{result.mrr_other_words:.3f}",
                "" if result.p_value is None else f"{result.p_value:.4f}",
                f"{result.median_ms:.0f}",
            )
        self._console.print(table)
        self.say(
            f"{len(items.questions)} known-item questions; {other_words} in words that no right document uses; "
            f"{items.dropped} left out, since nothing here answers them"
        )
