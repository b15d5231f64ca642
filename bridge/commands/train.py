"""`neural-bridge train`: models for another domain, or better ones from more data."""

import importlib.util
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bridge.commands.options.enrich import Command, collected_as
from bridge.errors import UsageError

if TYPE_CHECKING:
    from bridge.training.data import JudgedCollection
    from bridge.training.encoder import Pooling
    from bridge.training.recipes import TrainingData
    from bridge.training.sizes import Size

_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)


@click.group(name="train")
def command() -> None:
    """Train encoders, cross-encoders and query generators (extra: train)."""


@dataclass(frozen=True, slots=True)
class _Run:
    """A run of training, as the options of `_run_options` say it."""

    data: Path
    collection: Sequence[Path]
    watch: Sequence[Path]
    base: Path
    size: str
    minutes: float | None
    seed: int
    resume: bool
    out: Path
    as_json: bool

    def carry_out(self, kind: str, train: Callable[..., Path]) -> None:
        """Trains a model of this kind by `train`, one of `bridge.training.recipes`, and says where it is."""
        trained = train(self.base, self._training_data(), self._preset(), self.out, seed=self.seed, resume=self.resume)
        figures = self.out / "log.csv"
        if self.as_json:
            click.echo(json.dumps({"trained": str(trained), "kind": kind, "development_figures": str(figures)}))
            return
        click.echo(f"trained: {trained}; development figures: {figures}")
        click.echo(f"next: neural-bridge models export {trained} FOLDER --kind {kind} --name NAME --licence LICENCE")

    def _training_data(self) -> "TrainingData":
        from bridge.training.data import read_pairs
        from bridge.training.recipes import TrainingData

        return TrainingData(
            pairs=read_pairs(self.data),
            collections=[_judged(folder, "train") for folder in self.collection],
            watched=[_judged(folder, "test") for folder in self.watch],
        )

    def _preset(self) -> "Size":
        from bridge.training.sizes import SIZES

        preset = SIZES[self.size]
        if self.minutes is None:
            return preset
        limit_s = self.minutes * 60
        return replace(
            preset,
            ranking_loop=replace(preset.ranking_loop, time_limit_s=limit_s),
            embedding_loop=replace(preset.embedding_loop, time_limit_s=limit_s),
            generation_loop=replace(preset.generation_loop, time_limit_s=limit_s),
        )


def _run_options(command: Command) -> Command:
    """Adds the options of `_Run`; the command gets them as `run`."""
    collected = collected_as(_Run, "run", command)
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
        collected = option(collected)
    return collected


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
@click.option(
    "--base-share",
    type=click.FloatRange(0.0, 1.0),
    default=0.0,
    show_default=True,
    help="Share of the base's weights in the trained ones: half of each forgets less of other texts.",
)
def encoder(run: _Run, teachers: Sequence[str], pooling: "Pooling", base_share: float) -> None:
    """Fine-tune a bi-encoder on mined negatives."""
    _require_training_extra()
    from bridge.models.artifact import resolve
    from bridge.training.recipes import train_encoder

    imitated = [resolve(name) for name in teachers]
    run.carry_out("encoder", partial(train_encoder, pooling=pooling, teachers=imitated, base_share=base_share))


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
def cross_encoder(run: _Run, shape: str, teachers: Sequence[str], start: Path | None) -> None:
    """Train a reranker on mined negatives."""
    _require_training_extra()
    from bridge.models.artifact import resolve
    from bridge.training.recipes import train_cross_encoder
    from bridge.training.sizes import SHAPES

    if start is not None and shape != "base":
        raise UsageError(f"--start goes with --shape base, not {shape}: a {shape} model begins from scratch")
    run.carry_out(
        "cross_encoder",
        partial(train_cross_encoder, shape=SHAPES[shape], teachers=[resolve(name) for name in teachers], start=start),
    )


@command.command(name="query-generator")
@_run_options
def query_generator(run: _Run) -> None:
    """Train a generator of the queries that a passage answers."""
    _require_training_extra()
    from bridge.training.recipes import train_query_generator

    run.carry_out("query_generator", train_query_generator)


def _require_training_extra() -> None:
    missing = [name for name in ("torch", "transformers", "bm25s") if importlib.util.find_spec(name) is None]
    if missing:
        raise UsageError(
            f"training needs {', '.join(missing)}: install the extra, `pip install 'opensearch-neural-bridge[train]'`"
        )


def _judged(folder: Path, split: str) -> "JudgedCollection":
    from bridge.evaluation.collections import load_collection
    from bridge.training.data import JudgedCollection, read_corpus

    collection = load_collection(folder, split)
    judged = collection.judged
    return JudgedCollection(collection.name, read_corpus(collection.corpus), judged.queries, judged.qrels)
