"""What the commands on models share: a model folder is told and tried, and texts to try it on are read."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from bridge.errors import UsageError

if TYPE_CHECKING:
    from bridge.models.artifact import ModelFolder

CALIBRATION_TEXTS = 128


def description(folder: "ModelFolder") -> dict[str, object]:
    """What `--json` says of it."""
    manifest: dict[str, object] = msgspec.to_builtins(folder.manifest)
    return {"identity": folder.identity, "path": str(folder.path), **manifest}


def megabytes(folder: "ModelFolder") -> float:
    """What its files take."""
    return sum((folder.path / name).stat().st_size for name in folder.manifest.files) / 1e6


def print_figures(figures: Mapping[str, float]) -> None:
    """A line for each."""
    for figure, value in figures.items():
        click.echo(f"  {figure} {value:.4f}")


def load(folder: "ModelFolder") -> None:
    """Opens it, to see that it runs.

    Raises:
        ModelError: it does not.
    """
    from bridge.models.cross_encoder import CrossEncoder
    from bridge.models.encoder import Encoder
    from bridge.models.query_generator import QueryGenerator

    loaders: dict[str, Callable[..., object]] = {
        "encoder": Encoder.load,
        "cross_encoder": CrossEncoder.load,
        "query_generator": QueryGenerator.load,
    }
    loaders[folder.manifest.kind](folder, threads=1)


def read_pairs(file: Path) -> list[tuple[str, str]]:
    """Query (empty where there is none) and passage of the first lines of a JSON lines file.

    Raises:
        UsageError: a line is no object with a `passage`.
    """
    pairs: list[tuple[str, str]] = []
    with file.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                row = json.loads(line)
                pairs.append((row.get("query", ""), row["passage"]))
            except (ValueError, KeyError, AttributeError) as error:
                raise UsageError(f"{file}:{number}: a JSON object with `passage` is needed ({error})") from error
            if len(pairs) == CALIBRATION_TEXTS:
                break
    return pairs
