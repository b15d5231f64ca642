"""Prints a tuning as a table and a few lines of text."""

from collections.abc import Sequence

from rich.table import Table

from bridge.console import safe_cell
from bridge.evaluation.tuning.search import CrossValidated
from bridge.evaluation.tuning.setting import Setting
from bridge.profile import TuningRecord


def front_table(points: Sequence[CrossValidated], record: TuningRecord) -> Table:
    """The best quality for each time budget, quickest first."""
    measurement = record.measurement
    title = f"What time buys: {measurement.queries:,} queries ({measurement.judgements}), held out"
    table = Table(title=safe_cell(title))
    for heading in ("p95 ms, estimated", measurement.measure, "difference [95 %]"):
        table.add_column(heading, justify="right")
    table.add_column("setting", overflow="fold")
    for point in points:
        table.add_row(f"{point.p95_ms:.0f}", f"{point.tuned:.3f}", _difference(point, digits=3), str(point.setting))
    return table


def in_words(default: Setting, chosen: CrossValidated, record: TuningRecord) -> str:
    """The present settings, the chosen ones, and the held-out difference."""
    return "\n".join(
        [
            f"now:    {default}",
            f"chosen: {chosen.setting}",
            f"held out, {record.folds} folds: {chosen.default:.4f} → {chosen.tuned:.4f}, difference "
            f"{_difference(chosen, digits=4)}, p {chosen.p_value:.4f}",
        ]
    )


def _difference(held_out: CrossValidated, *, digits: int) -> str:
    mean, low, high = (held_out.difference.mean, held_out.difference.low, held_out.difference.high)
    return f"{mean:+.{digits}f} [{low:+.{digits}f}, {high:+.{digits}f}]"
