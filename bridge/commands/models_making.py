"""`neural-bridge models export`, `fetch` and `quantize`: model folders out of others' models (extra: train)."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from bridge.commands.index import json_option
from bridge.commands.model_folders import description, load, megabytes, print_figures, read_pairs
from bridge.errors import UsageError

if TYPE_CHECKING:
    from bridge.models.artifact import Kind, ModelFolder
    from bridge.models.hub import HubModel
    from bridge.training.export import Engine
    from bridge.training.quantization import Precision


@click.command()
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
    kind: "Kind",
    name: str,
    licence: str,
    sources: Sequence[str],
    max_tokens: int,
    pooling: str,
    engine: "Engine",
    query_prefix: str,
    passage_prefix: str,
    as_json: bool,
) -> None:
    """Export a transformers folder SOURCE to a model folder OUT.

    Encoders and cross-encoders come out in float32: `quantize` makes them small and quick. Query generators
    come out in int8 at once.
    """
    from bridge.training.export import export_model
    from bridge.training.transformers_folder import Card

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
        Card,
    )
    folder = export_model(kind, source, out, card, engine=engine)
    _tell_made(folder, out, as_json=as_json)


@click.command()
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
    load(folder)
    _tell_made(folder, out, as_json=as_json)


def _exported(model: "HubModel", out: Path) -> "ModelFolder":
    """Makes a model folder of a repository's safetensors.

    Raises:
        UsageError: the train extra is not installed.
    """
    try:
        from bridge.training.export import export_model
    except ImportError as error:
        raise UsageError(
            f"model {model.name!r} has no ONNX graph and must be exported, which needs {error.name}: install the "
            f"extra, `pip install 'opensearch-neural-bridge[train]'`, or name another file with --graph"
        ) from error
    from bridge.training.transformers_folder import Card

    card = Card(
        name=model.name,
        licence=model.licence,
        sources=[model.source],
        max_tokens=model.max_tokens,
        pooling=model.pooling,
        normalise=model.normalise,
        query_prefix=model.query_prefix,
        passage_prefix=model.passage_prefix,
    )
    return export_model(model.kind, model.folder, out, card, engine="onnx")


@click.command()
@click.argument("name")
@click.argument("out", type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--texts",
    "texts_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    required=True,
    help="JSON lines with `passage` and perhaps `query`: what the model will meet; some tell int8 its ranges.",
)
@click.option(
    "--precision",
    type=click.Choice(["int8", "fp16"]),
    default="int8",
    show_default=True,
    help="int8 for CPUs, fp16 for GPUs.",
)
@click.option(
    "--keep-tokens",
    type=click.FloatRange(0, 1, min_open=True),
    default=1.0,
    show_default=True,
    help="For a cross-encoder: the share of a passage's tokens that the upper half of its layers reads.",
)
@json_option
def quantize(name: str, out: Path, texts_file: Path, precision: "Precision", keep_tokens: float, as_json: bool) -> None:
    """Make an int8 or float16 model folder OUT of the float32 one NAME, and measure what it changes."""
    from bridge.models.artifact import resolve
    from bridge.training.quantization import quantize_folder

    pairs = read_pairs(texts_file)
    folder = quantize_folder(resolve(name), out, pairs, precision=precision, keep_tokens=keep_tokens)
    _tell_made(folder, out, as_json=as_json)


def _tell_made(folder: "ModelFolder", out: Path, *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(description(folder), indent=2))
        return
    click.echo(f"{folder.identity}: {megabytes(folder):.1f} MB in {out}; licence: {folder.manifest.licence}")
    print_figures(folder.manifest.figures)
