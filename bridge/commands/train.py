"""`neural-bridge train`: models for another domain, or better ones from more data."""

import importlib.util
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from bridge.errors import UsageError

if TYPE_CHECKING:
    from bridge.training.data import JudgedCollection
    from bridge.training.encoder import Pooling
    from bridge.training.recipes import TrainingData
    from bridge.training.sizes import Size

_Command = TypeVar("_Command", bound=Callable[..., None])
_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)


@click.group(name="train")
def command() -> None:
    """Train encoders, cross-encoders and query generators (extra: train)."""


def _run_options(function: _Command) -> _Command:
    for option in reversed(
        (
            click.option(
                "--data", required=True, type=_FOLDER, help="Folder of NAME.jsonl[.gz]: query, passage, label."
            ),
            click.option(
                "--collection", multiple=True, type=_FOLDER, help="Test collection; its train split is learnt."
            ),
            click.option("--watch", multiple=True, type=_FOLDER, help="Test collection to watch, never to learn from."),
            click.option(
                "--base", required=True, type=_FOLDER, help="BERT in transformers' layout; sentence encoders mine best."
            ),
            click.option("--size", type=click.Choice(["smoke", "cpu", "gpu"]), default="cpu", show_default=True),
            click.option("--minutes", type=click.FloatRange(min=0.1), help="End after this time, in any case."),
            click.option("--seed", type=int, default=1, show_default=True),
            click.option("--resume", is_flag=True, help="Go on with the run in --out."),
            click.option(
                "--out", required=True, type=click.Path(file_okay=False, path_type=Path), help="The run's folder."
            ),
            click.option("--json", "as_json", is_flag=True, help="Print one JSON object."),
        )
    ):
        function = option(function)
    return function


_teacher_option = click.option(
    "--teacher",
    "teachers",
    multiple=True,
    help="Encoder or cross-encoder to imitate in part: path, built-in or fetched; repeatable.",
)


@command.command(name="encoder")
@_run_options
@_teacher_option
@click.option("--pooling", type=click.Choice(["mean", "cls"]), default="mean", show_default=True)
def encoder(
    data: Path,
    collection: Sequence[Path],
    watch: Sequence[Path],
    base: Path,
    size: str,
    minutes: float | None,
    seed: int,
    resume: bool,
    out: Path,
    as_json: bool,
    teachers: Sequence[str],
    pooling: "Pooling",
) -> None:
    """Fine-tune a bi-encoder on mined negatives."""
    _require_training_extra()
    from bridge.models.artifact import resolve
    from bridge.training.recipes import train_encoder

    trained = train_encoder(
        base,
        _training_data(data, collection, watch),
        _preset(size, minutes),
        out,
        pooling=pooling,
        teachers=[resolve(name) for name in teachers],
        seed=seed,
        resume=resume,
    )
    _tell(trained, "encoder", out, as_json=as_json)


@command.command(name="cross-encoder")
@_run_options
@click.option(
    "--shape",
    type=click.Choice(["base", "tiny"]),
    default="base",
    show_default=True,
    help="base: that of --base. tiny: 2 layers, 128 wide, from scratch; the first stage of a cascade.",
)
@_teacher_option
@click.option("--start", type=_FOLDER, help="Trained folder to go on from, of the base's shape.")
def cross_encoder(
    data: Path,
    collection: Sequence[Path],
    watch: Sequence[Path],
    base: Path,
    size: str,
    minutes: float | None,
    seed: int,
    resume: bool,
    out: Path,
    as_json: bool,
    shape: str,
    teachers: Sequence[str],
    start: Path | None,
) -> None:
    """Train a reranker on mined negatives."""
    _require_training_extra()
    from bridge.models.artifact import resolve
    from bridge.training.recipes import train_cross_encoder
    from bridge.training.sizes import SHAPES

    if start is not None and shape != "base":
        raise UsageError(f"--start goes with --shape base, not {shape}: a {shape} model begins from scratch")
    trained = train_cross_encoder(
        base,
        _training_data(data, collection, watch),
        _preset(size, minutes),
        out,
        shape=SHAPES[shape],
        teachers=[resolve(name) for name in teachers],
        start=start,
        seed=seed,
        resume=resume,
    )
    _tell(trained, "cross_encoder", out, as_json=as_json)


@command.command(name="query-generator")
@_run_options
def query_generator(
    data: Path,
    collection: Sequence[Path],
    watch: Sequence[Path],
    base: Path,
    size: str,
    minutes: float | None,
    seed: int,
    resume: bool,
    out: Path,
    as_json: bool,
) -> None:
    """Train a generator of the queries that a passage answers."""
    _require_training_extra()
    from bridge.training.recipes import train_query_generator

    training_data, preset = _training_data(data, collection, watch), _preset(size, minutes)
    trained = train_query_generator(base, training_data, preset, out, seed=seed, resume=resume)
    _tell(trained, "query_generator", out, as_json=as_json)


def _require_training_extra() -> None:
    missing = [name for name in ("torch", "transformers", "bm25s") if importlib.util.find_spec(name) is None]
    if missing:
        raise UsageError(
            f"training needs {', '.join(missing)}: install the extra, `pip install 'opensearch-neural-bridge[train]'`"
        )


def _training_data(data: Path, collections: Sequence[Path], watched: Sequence[Path]) -> "TrainingData":
    from bridge.training.data import read_pairs
    from bridge.training.recipes import TrainingData

    return TrainingData(
        pairs=read_pairs(data),
        collections=[_judged(folder, "train") for folder in collections],
        watched=[_judged(folder, "test") for folder in watched],
    )


def _judged(folder: Path, split: str) -> "JudgedCollection":
    from bridge.evaluation.collections import load_collection
    from bridge.training.data import JudgedCollection, read_corpus

    collection = load_collection(folder, split)
    judged = collection.judged
    return JudgedCollection(collection.name, read_corpus(collection.corpus), judged.queries, judged.qrels)


def _preset(size: str, minutes: float | None) -> "Size":
    from bridge.training.sizes import SIZES

    preset = SIZES[size]
    if minutes is None:
        return preset
    return replace(
        preset,
        ranking_loop=replace(preset.ranking_loop, time_limit_s=minutes * 60),
        embedding_loop=replace(preset.embedding_loop, time_limit_s=minutes * 60),
        generation_loop=replace(preset.generation_loop, time_limit_s=minutes * 60),
    )


def _tell(trained: Path, kind: str, out: Path, *, as_json: bool) -> None:
    figures = out / "log.csv"
    if as_json:
        click.echo(json.dumps({"trained": str(trained), "kind": kind, "development_figures": str(figures)}))
        return
    click.echo(f"trained: {trained}; development figures: {figures}")
    click.echo(f"next: neural-bridge models export {trained} FOLDER --kind {kind} --name NAME --licence LICENCE")
