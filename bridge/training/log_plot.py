"""A run's log as a picture: the losses above, the development figures below."""

import csv
from collections import defaultdict
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt


def draw_log(log: Path, picture: Path) -> None:
    """Draws `log` (columns step, spent_s, figure, value) as a PNG."""
    series: dict[str, list[tuple[int, float]]] = defaultdict(list)
    with log.open(encoding="utf-8", newline="") as rows:
        for row in csv.DictReader(rows):
            series[row["figure"]].append((int(row["step"]), float(row["value"])))
    mpl.use("agg")
    figure, (losses, measures) = plt.subplots(2, 1, figsize=(8, 8), sharex=True, layout="constrained")
    for name, points in sorted(series.items()):
        axes = losses if "loss" in name else measures
        axes.plot(*zip(*points, strict=True), marker="." if len(points) < 50 else None, label=name)
    losses.set_ylabel("loss")
    measures.set_ylabel("nDCG@10 on development queries")
    measures.set_xlabel("step")
    for axes in (losses, measures):
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize="small", ncols=2)
        axes.grid(visible=True, alpha=0.3)
    figure.savefig(picture, dpi=110)
    plt.close(figure)
