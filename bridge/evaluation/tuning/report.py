"""Shows a tuning: a table, a few lines of text, and a plot of quality against time."""

from collections.abc import Sequence
from pathlib import Path

from rich.table import Column, Table

from bridge.console import number_columns, safe_cell
from bridge.evaluation.tuning.search import CrossValidated
from bridge.evaluation.tuning.setting import Setting
from bridge.profile import TuningRecord


def front_table(points: Sequence[CrossValidated], record: TuningRecord) -> Table:
    """The best quality for each time budget, quickest first."""
    measurement = record.measurement
    title = f"What time buys: {measurement.queries:,} queries ({measurement.judgements}), held out"
    figures = number_columns("p95 ms, estimated", measurement.measure, "difference [95 %]")
    table = Table(*figures, Column("setting", overflow="fold"), title=safe_cell(title))
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


def plot_front(file: Path, title: str, measure: str, points: Sequence[CrossValidated], chosen: CrossValidated) -> None:
    """Writes a PNG: held-out means with the intervals of their difference to the present settings, by estimated 95th
    percentile. Marks the chosen point and the present settings.

    Raises:
        ModuleNotFoundError: matplotlib is not installed.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.axhline(chosen.default, color="0.5", linestyle="--", label="settings before")
    for point in points:
        below, above = point.difference.mean - point.difference.low, point.difference.high - point.difference.mean
        axes.errorbar(point.p95_ms, point.tuned, yerr=[[below], [above]], fmt="o", color="tab:blue", capsize=3)
        axes.annotate(point.setting.stage, (point.p95_ms, point.tuned), xytext=(6, 6), textcoords="offset points")
    axes.plot(chosen.p95_ms, chosen.tuned, "*", markersize=15, color="tab:orange", label="chosen")
    axes.set(xscale="log", xlabel="95th percentile of a search, estimated (ms)", title=title)
    axes.set_ylabel(f"{measure}, held out")
    axes.grid(visible=True, alpha=0.3)
    axes.legend()
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file)


def _difference(held_out: CrossValidated, *, digits: int) -> str:
    mean, low, high = (held_out.difference.mean, held_out.difference.low, held_out.difference.high)
    return f"{mean:+.{digits}f} [{low:+.{digits}f}, {high:+.{digits}f}]"
