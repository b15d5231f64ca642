"""`neural-bridge models`: look at model folders, and make them (extra: train)."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Literal

import click
import msgspec

from bridge.errors import UsageError

if TYPE_CHECKING:
    from bridge.models.artifact import Kind, ModelFolder
    from bridge.models.hub import HubModel
    from bridge.training.quantization import Precision

CALIBRATION_TEXTS = 128

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
texts_option = click.option(
    "--texts",
    "texts_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    required=True,
    help="JSON lines with `passage` and perhaps `query`: what the model will meet; some tell int8 its ranges.",
)


@click.group(name="models")
def command() -> None:
    """Fetch, export, quantise, verify and list models."""


@command.command("list")
@json_option
def list_models(as_json: bool) -> None:
    """List the models that come with the program."""
    from bridge.models.artifact import builtin_names, resolve

    folders = [resolve(name) for name in builtin_names()]
    if as_json:
        click.echo(json.dumps([_description(folder) for folder in folders]))
        return
    for folder in folders:
        click.echo(f"{folder.identity:34} {folder.manifest.kind:16} {_megabytes(folder):6.1f} MB")


@command.command()
@click.argument("name")
def show(name: str) -> None:
    """Show the manifest of a model: NAME is a path, a built-in, or a fetched one."""
    from bridge.models.artifact import resolve

    click.echo(json.dumps(_description(resolve(name)), indent=2))


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
    _load(folder)
    if (against is None) != (texts_file is None):
        raise UsageError("--against and --texts go together: a comparison needs texts")
    figures = folder.manifest.figures
    if against is not None and texts_file is not None:
        figures = _compared(folder, against, read_pairs(texts_file))
    if as_json:
        click.echo(json.dumps({"identity": folder.identity, "whole": True, "figures": dict(figures)}, indent=2))
        return
    click.echo(f"{folder.identity}: whole, and it runs")
    _print_figures(figures)


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

            manifest = folder.manifest
            card = exporting.Card(
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


def _print_figures(figures: Mapping[str, float]) -> None:
    for figure, value in figures.items():
        click.echo(f"  {figure} {value:.4f}")


@command.command()
@click.argument("source", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("out", type=click.Path(file_okay=False, path_type=Path))
@click.option("--kind", type=click.Choice(["encoder", "cross_encoder", "query_generator"]), required=True)
@click.option("--name", required=True, help="The model's name in stamps, profiles and logs.")
@click.option("--licence", required=True, help="Licence of the weights, as an SPDX expression.")
@click.option("--source-note", "sources", multiple=True, help="Where the weights and their data come from; repeatable.")
@click.option("--max-tokens", default=256, show_default=True, help="Texts are cut to so many tokens.")
@click.option("--pooling", type=click.Choice(["mean", "cls", "max"]), default="mean", show_default=True)
@click.option(
    "--engine",
    type=click.Choice(["ctranslate2", "onnx"]),
    default="ctranslate2",
    show_default=True,
    help="What is to run a query generator.",
)
@click.option("--query-prefix", default="", help="What the encoder wants before a query.")
@click.option("--passage-prefix", default="", help="What the encoder wants before a passage.")
@json_option
def export(
    source: Path,
    out: Path,
    kind: str,
    name: str,
    licence: str,
    sources: Sequence[str],
    max_tokens: int,
    pooling: str,
    engine: Literal["ctranslate2", "onnx"],
    query_prefix: str,
    passage_prefix: str,
    as_json: bool,
) -> None:
    """Export a transformers folder SOURCE to a model folder OUT.

    Encoders and cross-encoders come out in float32: `quantize` makes them small and quick. Query generators
    come out in int8 at once.
    """
    from bridge.training import export as exporting

    card = msgspec.convert(
        {
            "name": name,
            "licence": licence,
            "sources": list(sources),
            "max_tokens": max_tokens,
            "pooling": pooling,
            "query_prefix": query_prefix,
            "passage_prefix": passage_prefix,
        },
        exporting.Card,
    )
    if kind == "query_generator":
        folder = exporting.export_query_generator(source, out, card, engine=engine)
    elif kind == "encoder":
        folder = exporting.export_encoder(source, out, card)
    else:
        folder = exporting.export_cross_encoder(source, out, card)
    _tell_made(folder, out, as_json=as_json)


@command.command()
@click.argument("name")
@click.option(
    "--mirror",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder in the layout of the hub's own cache; the network is then left alone.",
)
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), help="Model folder; by default, the cache.")
@click.option("--kind", type=click.Choice(["encoder", "cross_encoder", "query_generator"]), help="What NAME is.")
@click.option("--graph", help="The ONNX file to take, by its path in the repository.")
@click.option("--query-prefix", help="What the encoder wants before a query, where its files do not say so.")
@click.option("--passage-prefix", help="What it wants before a passage.")
@json_option
def fetch(
    name: str,
    mirror: Path | None,
    out: Path | None,
    kind: "Kind | None",
    graph: str | None,
    query_prefix: str | None,
    passage_prefix: str | None,
    as_json: bool,
) -> None:
    """Fetch the hub's model NAME (ORG/NAME), which may then be named wherever a model is.

    A ready ONNX graph is taken as it is; safetensors are exported (extra: train). Weights saved by pickle and
    code are refused.
    """
    from bridge.models.artifact import fetched_folder
    from bridge.models.hub import copy_ready_graph, download

    model = download(name, mirror=mirror, kind=kind, graph=graph)
    model = replace(
        model,
        query_prefix=model.query_prefix if query_prefix is None else query_prefix,
        passage_prefix=model.passage_prefix if passage_prefix is None else passage_prefix,
    )
    out = out or fetched_folder(name)
    folder = copy_ready_graph(model, out, name=name) if model.graph else _exported(model, out)
    _load(folder)
    _tell_made(folder, out, as_json=as_json)


def _exported(model: "HubModel", out: Path) -> "ModelFolder":
    """Makes a model folder of a repository's safetensors.

    Raises:
        UsageError: the train extra is not installed.
    """
    try:
        from bridge.training import export as exporting
    except ImportError as error:
        raise UsageError(
            f"model {model.name!r} has no ONNX graph and must be exported, which needs {error.name}: install the "
            f"extra, `pip install 'opensearch-neural-bridge[train]'`, or name another file with --graph"
        ) from error

    card = exporting.Card(
        name=model.name,
        licence=model.licence,
        sources=[model.source],
        max_tokens=model.max_tokens,
        pooling=model.pooling,
        normalise=model.normalise,
        query_prefix=model.query_prefix,
        passage_prefix=model.passage_prefix,
    )
    if model.kind == "query_generator":
        return exporting.export_query_generator(model.folder, out, card, engine="onnx")
    if model.kind == "encoder":
        return exporting.export_encoder(model.folder, out, card)
    return exporting.export_cross_encoder(model.folder, out, card)


@command.command()
@click.argument("name")
@click.argument("out", type=click.Path(file_okay=False, path_type=Path))
@texts_option
@click.option(
    "--precision",
    type=click.Choice(["int8", "fp16"]),
    default="int8",
    show_default=True,
    help="int8 for CPUs, fp16 for GPUs.",
)
@json_option
def quantize(name: str, out: Path, texts_file: Path, precision: "Precision", as_json: bool) -> None:
    """Make an int8 or float16 model folder OUT of the float32 one NAME, and measure what it changes."""
    from bridge.models.artifact import resolve
    from bridge.training.quantization import quantize_folder

    folder = quantize_folder(resolve(name), out, read_pairs(texts_file), precision=precision)
    _tell_made(folder, out, as_json=as_json)


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


def _tell_made(folder: "ModelFolder", out: Path, *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(_description(folder), indent=2))
        return
    click.echo(f"{folder.identity}: {_megabytes(folder):.1f} MB in {out}; licence: {folder.manifest.licence}")
    _print_figures(folder.manifest.figures)


def _load(folder: "ModelFolder") -> None:
    from bridge.models.cross_encoder import CrossEncoder
    from bridge.models.encoder import Encoder
    from bridge.models.query_generator import QueryGenerator

    load: dict[str, Callable[..., object]] = {
        "encoder": Encoder.load,
        "cross_encoder": CrossEncoder.load,
        "query_generator": QueryGenerator.load,
    }
    load[folder.manifest.kind](folder, threads=1)


def _description(folder: "ModelFolder") -> dict[str, object]:
    manifest: dict[str, object] = msgspec.to_builtins(folder.manifest)
    return {"identity": folder.identity, "path": str(folder.path), **manifest}


def _megabytes(folder: "ModelFolder") -> float:
    return sum((folder.path / name).stat().st_size for name in folder.manifest.files) / 1e6
