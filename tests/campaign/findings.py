"""What a run found, kept in a folder: findings as lines of JSON, and how far the run is, so that it can go on."""

import json
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

MAX_OF_A_KIND = 10
"""Findings of one kind that are written down; all are counted."""


@dataclass
class Findings:
    """The run of a seed. A folder that holds a run of the same seed is gone on with.

    Attributes:
        next: the number of the first request that was not sent yet.
        counts: findings by kind.
    """

    folder: Path
    name: str
    seed: int
    next: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    figures: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        if self._state.is_file():
            before = json.loads(self._state.read_text("utf-8"))
            if before["seed"] != self.seed:
                raise click.UsageError(f"{self.folder} holds a run of seed {before['seed']}: name another folder")
            self.next = before["next"]
            self.counts.update(before["findings"])
            self.figures.update(before["figures"])

    @property
    def _state(self) -> Path:
        return self.folder / f"{self.name}.json"

    def note(self, kind: str, **what: Any) -> None:
        """Writes a finding down."""
        self.counts[kind] += 1
        if self.counts[kind] <= MAX_OF_A_KIND:
            with (self.folder / f"{self.name}.jsonl").open("a", encoding="utf-8") as lines:
                lines.write(json.dumps({"kind": kind, **what}) + "\n")

    def save(self) -> None:
        """Writes down how far the run is."""
        state = {"seed": self.seed, "next": self.next, "findings": self.counts, "figures": self.figures}
        partial = self._state.with_suffix(".part")
        partial.write_text(json.dumps(state), "utf-8")
        partial.replace(self._state)

    def progress(self, text: str) -> None:
        """Tells a terminal how far the run is; anything else that stderr may be gets nothing."""
        if sys.stderr.isatty():
            click.echo(f"\r{text}  findings {self.counts.total()} \033[K", nl=False, err=True)
