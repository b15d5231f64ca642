"""Plots quality against time."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from bridge.evaluation.tuning.search import CrossValidated


def plot_front(file: Path, title: str, measure: str, points: Sequence[CrossValidated], chosen: CrossValidated) -> None:
    """Writes a PNG: held-out means with the intervals of their difference to the present settings, by estimated 95th
    percentile. Marks the chosen point and the present settings."""
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
