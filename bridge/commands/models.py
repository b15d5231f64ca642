"""`neural-bridge models`: look at model folders, and make them."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import click

from bridge.commands import models_making
from bridge.commands.index import json_option
from bridge.commands.model_folders import description, load, megabytes, print_figures, read_pairs
from bridge.errors import UsageError

if TYPE_CHECKING:
    from bridge.models.artifact import ModelFolder


@click.group(name="models")
def command() -> None:
    """Fetch, export, quantise, verify and list models."""


for subcommand in (models_making.fetch, models_making.export, models_making.quantize):
    command.add_command(subcommand)


@command.command("list")
@json_option
def list_models(as_json: bool) -> None:
    """List the models that come with the program."""
    from bridge.models.artifact import builtin_names, resolve

    folders = [resolve(name) for name in builtin_names()]
    if as_json:
        click.echo(json.dumps([description(folder) for folder in folders]))
        return
    for folder in folders:
        click.echo(f"{folder.identity:34} {folder.manifest.kind:16} {megabytes(folder):6.1f} MB")


@command.command()
@click.argument("name")
def show(name: str) -> None:
    """Show the manifest of a model: NAME is a path, a built-in, or a fetched one."""
    from bridge.models.artifact import resolve

    click.echo(json.dumps(description(resolve(name)), indent=2))


@command.command()
@click.argument("name")
@click.option(
    "--against",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Model folder of the same model in another form, or its transformers folder (extra: train).",
)
@click.option(
    "--texts",
    "texts_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="JSON lines with `query` and `passage` on which the two are compared.",
)
@json_option
def verify(name: str, against: Path | None, texts_file: Path | None, as_json: bool) -> None:
    """Check a model's files and digests, that it runs, and how true it is to another form of itself.

    Prints what was measured when it was quantised; with --against, measures anew, and refuses a model that differs
    by more than rounding.
    """
    from bridge.models.artifact import resolve

    folder = resolve(name)
    load(folder)
    if (against is None) != (texts_file is None):
        raise UsageError("--against and --texts go together: a comparison needs texts")
    figures = folder.manifest.figures
    if against is not None and texts_file is not None:
        figures = _compared(folder, against, read_pairs(texts_file))
    if as_json:
        click.echo(json.dumps({"identity": folder.identity, "whole": True, "figures": dict(figures)}, indent=2))
        return
    click.echo(f"{folder.identity}: whole, and it runs")
    print_figures(figures)


def _compared(folder: "ModelFolder", against: Path, pairs: list[tuple[str, str]]) -> dict[str, float]:
    """Figures beside the model in `against`.

    Raises:
        ModelError: they tell of more than rounding.
    """
    from bridge.models.artifact import MANIFEST, read_folder
    from bridge.models.fidelity import check, fidelity

    with TemporaryDirectory() as scratch:
        if (against / MANIFEST).is_file():
            reference = read_folder(against)
        else:
            from bridge.training import export as exporting  # which compares its graph with torch
            from bridge.training.transformers_folder import Card

            manifest = folder.manifest
            card = Card(
                name=manifest.name,
                licence=manifest.licence,
                max_tokens=manifest.max_tokens,
                pooling=manifest.pooling,
                normalise=manifest.normalise,
                query_prefix=manifest.query_prefix,
                passage_prefix=manifest.passage_prefix,
            )
            export = exporting.export_encoder if manifest.kind == "encoder" else exporting.export_cross_encoder
            reference = export(against, Path(scratch), card)
        figures = fidelity(reference, folder, pairs)
    check(figures, folder)
    return figures
