"""`neural-bridge models`: list, inspect, fetch, export, quantise and distil model folders."""

import gzip
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import click
import msgspec

from bridge.commands import JSON, needs_extra, say, show
from bridge.commands.options.signature import EXISTING_FILE, EXISTING_FOLDER, FOLDER, argument, cli_command, option
from bridge.errors import UsageError

if TYPE_CHECKING:
    from bridge.models.artifact import Kind, ModelFolder
    from bridge.models.hub import HubModel
    from bridge.training.export import Engine
    from bridge.training.quantization import Precision

CALIBRATION_TEXTS = 128
COUNTED_TEXTS = 10_000
"""Texts of one file in which pieces of words are counted; more would let a large file outweigh the others."""

_KIND = click.Choice(["encoder", "cross_encoder", "query_generator", "sparse_encoder", "image_encoder"])

_PICTURES = option(
    "--pictures", type=EXISTING_FOLDER, help="Folder of pictures like yours, which an image encoder needs beside texts."
)
_MOST_PICTURES = 200

_IDF_TEXTS = 100_000
"""So many texts tell well enough how rare word pieces are."""


@click.group(name="models")
def command() -> None:
    """Fetch, export, quantise, distil, verify and list models."""


@cli_command("list", of=command)
def list_models(*, as_json: bool = JSON) -> None:
    """List the built-in models."""
    from bridge.models.artifact import builtin_names, resolve

    folders = [resolve(name) for name in builtin_names()]
    if as_json:
        click.echo(json.dumps([_description(folder) for folder in folders], indent=2))
        return
    for folder in folders:
        say(f"{folder.identity:34} {folder.manifest.kind:16} {_megabytes(folder):6.1f} MB")


@cli_command("show", of=command)
def show_model(*, name: str = argument()) -> None:
    """Show the manifest of the model NAME: a path, a built-in, or a fetched model."""
    from bridge.models.artifact import resolve

    click.echo(json.dumps(_description(resolve(name)), indent=2))


@cli_command(of=command)
def verify(
    *,
    name: str = argument(),
    against: Path | None = option(
        "--against",
        type=EXISTING_FOLDER,
        help="Model folder of the same model in another form, or its transformers folder (extra: train).",
    ),
    texts_file: Path | None = option(
        "--texts", type=EXISTING_FILE, help="JSON lines with `query` and `passage` to compare the two forms on."
    ),
    pictures: Path | None = _PICTURES,
    as_json: bool = JSON,
) -> None:
    """Check a model's files and digests, load it, and compare it with another form of itself.

    Prints the figures that were measured when the model was quantised. With --against, measures again, and fails
    if the two differ by more than rounding.
    """
    from bridge.models.artifact import resolve

    folder = resolve(name)
    _load(folder)
    if (against is None) != (texts_file is None):
        raise UsageError("--against and --texts go together: a comparison needs texts")
    figures: Mapping[str, float] = folder.manifest.figures
    if against is not None and texts_file is not None:
        figures = _compared(folder, against, read_pairs(texts_file), read_pictures(pictures))
    show(
        {"identity": folder.identity, "whole": True, "figures": dict(figures)},
        f"{folder.identity}: whole, and it runs",
        *_figure_lines(figures),
        as_json=as_json,
    )


@command.command()
@click.argument("source", type=EXISTING_FOLDER)
@click.argument("out", type=FOLDER)
@click.option("--kind", type=_KIND, required=True, help="What the model is.")
@click.option("--name", required=True, help="The model's name in stamps, profiles and logs.")
@click.option("--licence", required=True, help="Licence of the weights, as an SPDX expression.")
@click.option("--source-note", "sources", multiple=True, help="Origin of the weights and their data; repeatable.")
@click.option("--max-tokens", default=256, show_default=True, help="Longer texts are cut to this length.")
@click.option(
    "--pooling",
    type=click.Choice(["mean", "cls", "max"]),
    default="mean",
    show_default=True,
    help="How an encoder turns token vectors into one.",
)
@click.option(
    "--engine",
    type=click.Choice(["ctranslate2", "onnx"]),
    default="ctranslate2",
    show_default=True,
    help="Engine that runs a query generator.",
)
@click.option("--query-prefix", default="", help="Prefix that the encoder expects before a query.")
@click.option("--passage-prefix", default="", help="Prefix that the encoder expects before a passage.")
@click.option(
    "--texts",
    "texts_file",
    type=EXISTING_FILE,
    help="JSON lines with `passage`, typical of your documents: how rare the word pieces are in them is how much they "
    "weigh in queries of a sparse encoder.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def export(
    source: Path, out: Path, kind: "Kind", engine: "Engine", texts_file: Path | None, as_json: bool, **card: Any
) -> None:
    """Export a transformers folder SOURCE to a model folder OUT.

    Encoders of all kinds and cross-encoders are written in float32; `quantize` makes them small and fast. Query
    generators are written in int8 directly.
    """
    texts = [passage for _, passage in read_pairs(texts_file, most=_IDF_TEXTS)] if texts_file else []
    folder = _export("exporting a model", kind, source, out, card, engine=engine, texts=texts)
    _show_made(folder, out, as_json=as_json)


@cli_command(of=command)
def fetch(
    *,
    name: str = argument(),
    mirror: Path | None = option(
        "--mirror", type=EXISTING_FOLDER, help="Folder in the layout of the hub's own cache, to use without network."
    ),
    out: Path | None = option("--out", type=FOLDER, help="Model folder to write. Defaults to a folder in the cache."),
    kind: "Kind | None" = option("--kind", type=_KIND, help="What the model is, if its files do not say so."),
    graph: str | None = option("--graph", help="Path of the ONNX file to use, in the repository."),
    query_prefix: str | None = option(
        "--query-prefix", help="Prefix that the encoder expects before a query, if its files do not say so."
    ),
    passage_prefix: str | None = option("--passage-prefix", help="Prefix that it expects before a passage."),
    as_json: bool = JSON,
) -> None:
    """Download the hub model NAME (ORG/NAME); after that every option that names a model accepts it.

    A ready ONNX graph is used as it is; safetensors are exported (extra: train). Pickled weights and code are
    refused.
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
    _show_made(folder, out, as_json=as_json)


@cli_command(of=command)
def quantize(
    *,
    name: str = argument(),
    out: Path = argument(type=FOLDER),
    texts_file: Path = option(
        "--texts",
        type=EXISTING_FILE,
        required=True,
        help="JSON lines with `passage` and optionally `query`, typical of your documents, to calibrate int8 with.",
    ),
    precision: "Precision" = option(
        "--precision", type=click.Choice(["int8", "fp16"]), default="int8", help="int8 for CPUs, fp16 for GPUs."
    ),
    keep_tokens: float = option(
        "--keep-tokens",
        type=click.FloatRange(0, 1, min_open=True),
        default=1.0,
        help="For a cross-encoder: share of a passage's tokens that the upper half of its layers reads.",
    ),
    pictures: Path | None = _PICTURES,
    as_json: bool = JSON,
) -> None:
    """Write an int8 or float16 version OUT of the float32 model NAME, and measure the difference."""
    from bridge.models.artifact import resolve

    with needs_extra("quantising a model", "train"):
        from bridge.training.quantization import quantize_folder

    pairs = read_pairs(texts_file)
    folder = quantize_folder(
        resolve(name), out, pairs, precision=precision, keep_tokens=keep_tokens, pictures=read_pictures(pictures)
    )
    _show_made(folder, out, as_json=as_json)


@cli_command(of=command)
def static(
    *,
    encoder: str = argument(),
    out: Path = argument(type=FOLDER),
    files: tuple[Path, ...] = option(
        "--texts",
        type=EXISTING_FILE,
        multiple=True,
        required=True,
        help="JSON lines (.gz too) with `text` or `passage`, in which pieces of words are counted; repeatable.",
    ),
    name: str = option("--name", required=True, help="The model's name in stamps, profiles and logs."),
    dimension: int = option(
        "--dimension", type=click.IntRange(min=1), default=256, help="Numbers in an embedding, at most ENCODER's."
    ),
    as_json: bool = JSON,
) -> None:
    """Write a static encoder OUT made of the encoder ENCODER: a path, a built-in, or a fetched model.

    A static encoder runs no neural network: it adds up one vector for each piece of a word, so it fills an index many
    times faster, and finds less. Of each file at most 10,000 texts are read.
    """
    from bridge.models.artifact import resolve
    from bridge.models.distillation import make_static_encoder

    texts = list(dict.fromkeys(text for file in files for text in read_texts(file)))
    counted = f"its pieces counted in {len(texts):,} texts of {', '.join(file.name for file in files)}"
    folder = make_static_encoder(resolve(encoder), out, name=name, dimension=dimension, texts=texts, sources=[counted])
    _load(folder)
    _show_made(folder, out, as_json=as_json)


def read_texts(file: Path) -> list[str]:
    """`text` or `passage` of the first `COUNTED_TEXTS` lines of a JSON lines file, gzipped if its name ends so.

    Raises:
        UsageError: a line is no object with one of them, or the file is not gzipped.
    """
    texts: list[str] = []
    try:
        with (gzip.open if file.suffix == ".gz" else open)(file, "rt", encoding="utf-8") as lines:
            for line in islice(lines, COUNTED_TEXTS):
                row = msgspec.json.decode(line, type=dict[str, Any])
                texts.append(msgspec.convert(row.get("text", row.get("passage")), str))
    except (OSError, ValueError, msgspec.MsgspecError) as error:
        raise UsageError(
            f"{file}:{len(texts) + 1}: expected a JSON object with `text` or `passage` ({error})"
        ) from error
    return texts


def read_pairs(file: Path, most: int = CALIBRATION_TEXTS) -> list[tuple[str, str]]:
    """Query (may be empty) and passage of the first `most` lines of a JSON lines file.

    Raises:
        UsageError: a line is not an object with a `passage`.
    """
    pairs: list[tuple[str, str]] = []
    with file.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                row = json.loads(line)
                pairs.append((row.get("query", ""), row["passage"]))
            except (ValueError, KeyError, AttributeError) as error:
                raise UsageError(f"{file}:{number}: expected a JSON object with `passage` ({error})") from error
            if len(pairs) == most:
                break
    return pairs


def read_pictures(folder: Path | None) -> list[bytes]:
    """The first pictures of a folder, by name; none without a folder."""
    files = sorted(file for file in folder.iterdir() if file.is_file()) if folder else []
    return [file.read_bytes() for file in files[:_MOST_PICTURES]]


def _load(folder: "ModelFolder") -> None:
    """Loads the model once as a self-test."""
    from bridge.models.cross_encoder import CrossEncoder
    from bridge.models.encoder import Encoder
    from bridge.models.image_encoder import ImageEncoder
    from bridge.models.query_generator import QueryGenerator
    from bridge.models.sparse_encoder import SparseEncoder

    if folder.manifest.kind == "image_encoder":
        Encoder.load(folder, threads=1)
    loaders: dict[str, Callable[..., object]] = {
        "encoder": Encoder.load,
        "static_encoder": Encoder.load,
        "cross_encoder": CrossEncoder.load,
        "query_generator": QueryGenerator.load,
        "sparse_encoder": SparseEncoder.load,
        "image_encoder": ImageEncoder.load,
    }
    loaders[folder.manifest.kind](folder, threads=1)


def _compared(
    folder: "ModelFolder", against: Path, pairs: list[tuple[str, str]], pictures: list[bytes]
) -> dict[str, float]:
    """Figures of `folder` beside the model in `against`, if they differ by rounding only."""
    from bridge.models.artifact import MANIFEST, read_folder
    from bridge.models.fidelity import check, fidelity

    with TemporaryDirectory() as scratch:
        if (against / MANIFEST).is_file():
            reference = read_folder(against)
        else:
            purpose = f"{against} is no model folder: exporting it"
            card = _card(folder.manifest)
            # An export compares its graph with torch.
            reference = _export(purpose, folder.manifest.kind, against, Path(scratch), card)
        figures = fidelity(reference, folder, pairs, pictures)
    check(figures, folder)
    return figures


def _exported(model: "HubModel", out: Path) -> "ModelFolder":
    purpose = f"model {model.name!r} has no ONNX graph (or name another file with --graph): exporting it"
    return _export(purpose, model.kind, model.folder, out, {**_card(model), "sources": [model.source]})


def _export(
    purpose: str,
    kind: "Kind",
    source: Path,
    out: Path,
    card: Mapping[str, Any],
    *,
    engine: "Engine" = "onnx",
    texts: Sequence[str] = (),
) -> "ModelFolder":
    """Exports a model of any kind; `engine` is a query generator's, `texts` are a sparse encoder's."""
    with needs_extra(purpose, "train"):
        from bridge.training.export import export_model
        from bridge.training.image_export import export_image_encoder
        from bridge.training.sparse_export import export_sparse_encoder
        from bridge.training.transformers_folder import Card
    about = msgspec.convert(card, Card)
    if kind == "sparse_encoder":
        return export_sparse_encoder(source, out, about, texts)
    if kind == "image_encoder":
        return export_image_encoder(source, out, about)
    return export_model(kind, source, out, about, engine=engine)


def _card(model: Any) -> dict[str, Any]:
    """The card of a hub model or a manifest: both name these fields alike."""
    fields = ("name", "licence", "max_tokens", "pooling", "normalise", "query_prefix", "passage_prefix", "languages")
    return {field: getattr(model, field) for field in fields}


def _show_made(folder: "ModelFolder", out: Path, *, as_json: bool) -> None:
    line = f"{folder.identity}: {_megabytes(folder):.1f} MB in {out}; licence: {folder.manifest.licence}"
    show(_description(folder), line, *_figure_lines(folder.manifest.figures), as_json=as_json)


def _description(folder: "ModelFolder") -> dict[str, Any]:
    return {"identity": folder.identity, "path": str(folder.path), **msgspec.to_builtins(folder.manifest)}


def _megabytes(folder: "ModelFolder") -> float:
    return sum((folder.path / name).stat().st_size for name in folder.manifest.files) / 1e6


def _figure_lines(figures: Mapping[str, float]) -> Sequence[str]:
    return [f"  {figure} {value:.4f}" for figure, value in figures.items()]
