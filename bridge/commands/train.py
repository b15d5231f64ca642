"""`neural-bridge train`: train encoders, cross-encoders and query generators on your own data."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bridge.commands import JSON, require_packages, show
from bridge.commands.options.signature import EXISTING_FOLDER, FOLDER, cli_command, option
from bridge.errors import UsageError

if TYPE_CHECKING:
    from bridge.training.data import JudgedCollection
    from bridge.training.encoder import Pooling
    from bridge.training.recipes import TrainingData
    from bridge.training.sizes import Size


@click.group(name="train")
def command() -> None:
    """Train encoders, cross-encoders and query generators (extra: train)."""


@dataclass(frozen=True, slots=True)
class _Run:
    """What a model is trained from, for how long, and where it is written."""

    data: Path = option(
        "--data",
        required=True,
        type=EXISTING_FOLDER,
        help="Folder of NAME.jsonl[.gz] files with query, passage, label.",
    )
    collection: Sequence[Path] = option(
        "--collection",
        multiple=True,
        type=EXISTING_FOLDER,
        help="Test collection whose train split to learn from; repeatable.",
    )
    watch: Sequence[Path] = option(
        "--watch", multiple=True, type=EXISTING_FOLDER, help="Test collection for development figures only; repeatable."
    )
    base: Path = option(
        "--base", required=True, type=EXISTING_FOLDER, help="Starting checkpoint (a BERT in transformers format)."
    )
    size: str = option(
        "--size",
        type=click.Choice(["smoke", "cpu", "gpu"]),
        default="cpu",
        help="Batch sizes and training time for this hardware; smoke only tests the setup.",
    )
    minutes: float | None = option(
        "--minutes", type=click.FloatRange(min=0.1), help="Stop training after this time at the latest."
    )
    seed: int = option("--seed", type=int, default=1, help="Seed of the random numbers.")
    resume: bool = option("--resume", help="Continue the run in --out.")
    out: Path = option("--out", required=True, type=FOLDER, help="Folder of the run.")
    as_json: bool = JSON

    def carry_out(self, kind: str, train: Callable[..., Path]) -> None:
        """Trains a model of this kind with `train`, a function of `bridge.training.recipes`, and prints its folder."""
        trained = train(self.base, self._training_data(), self._preset(), self.out, seed=self.seed, resume=self.resume)
        figures = self.out / "log.csv"
        show(
            {"trained": str(trained), "kind": kind, "development_figures": str(figures)},
            f"trained: {trained}; development figures: {figures}",
            f"next: neural-bridge models export {trained} FOLDER --kind {kind} --name NAME --licence LICENCE",
            as_json=self.as_json,
        )

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

        size = SIZES[self.size]
        return size if self.minutes is None else size.within(self.minutes)


_TEACHERS = option(
    "--teacher",
    multiple=True,
    help="Encoder, sparse encoder or cross-encoder to distil from: path, built-in or fetched; repeatable.",
)


@cli_command(of=command)
def encoder(
    *,
    run: _Run,
    teachers: Sequence[str] = _TEACHERS,
    pooling: "Pooling" = option(
        "--pooling", type=click.Choice(["mean", "cls"]), default="mean", help="How token vectors become one."
    ),
    base_share: float = option(
        "--base-share",
        type=click.FloatRange(0.0, 1.0),
        default=0.0,
        help="Share of the base's weights to average into the result; 0.5 forgets less about other texts.",
    ),
) -> None:
    """Fine-tune a bi-encoder on mined negatives."""
    require_packages("training", ("torch", "transformers", "bm25s"), "train")
    from bridge.models.artifact import resolve
    from bridge.training.recipes import train_encoder

    imitated = [resolve(name) for name in teachers]
    run.carry_out("encoder", partial(train_encoder, pooling=pooling, teachers=imitated, base_share=base_share))


@cli_command("cross-encoder", of=command)
def cross_encoder(
    *,
    run: _Run,
    shape: str = option(
        "--shape",
        type=click.Choice(["base", "tiny"]),
        default="base",
        help="base: as --base. tiny: 2 layers, 128 wide, from scratch, for the first stage of a cascade.",
    ),
    teachers: Sequence[str] = _TEACHERS,
    start: Path | None = option(
        "--start", type=EXISTING_FOLDER, help="Trained folder to continue from, of the same shape as --base."
    ),
    miner: str | None = option(
        "--miner", help="Encoder that finds negatives and teaches: path, built-in or fetched. Defaults to --base."
    ),
    whole: bool = option(
        "--whole", help="Read 15 negatives a query and whole passages, not windows of them: slower, for long runs."
    ),
    teacher_share: float | None = option(
        "--teacher-share",
        type=click.FloatRange(0.0, 1.0),
        help="Share of the teachers' order in the loss; the rest is for the judged passage. Default: 0.45.",
    ),
) -> None:
    """Train a reranker on mined negatives."""
    require_packages("training", ("torch", "transformers", "bm25s"), "train")
    from bridge.models.artifact import resolve
    from bridge.training.recipes import train_cross_encoder
    from bridge.training.sizes import SHAPES

    if start is not None and shape != "base":
        raise UsageError(f"--start goes with --shape base, not {shape}: a {shape} model begins from scratch")
    run.carry_out(
        "cross_encoder",
        partial(
            train_cross_encoder,
            shape=SHAPES[shape],
            teachers=[resolve(name) for name in teachers],
            start=start,
            miner=None if miner is None else resolve(miner),
            whole=whole,
            teacher_share=teacher_share,
        ),
    )


@cli_command("sparse-encoder", of=command)
def sparse_encoder(
    *,
    run: _Run,
    miner: str = option(
        "--miner", default="embed-base", help="Encoder that finds negatives and teaches: path, built-in or fetched."
    ),
    teachers: Sequence[str] = _TEACHERS,
    flops: float = option(
        "--flops",
        type=click.FloatRange(min=0),
        default=0.01,
        help="Price of the weights of word pieces: more makes fewer terms.",
    ),
    queries: str = option(
        "--queries",
        type=click.Choice(["idf", "model"]),
        default="idf",
        help="How queries weigh their word pieces, as `ingest.sparse_queries` will: idf needs no model.",
    ),
) -> None:
    """Train a sparse encoder (SPLADE) on mined negatives; --base has a masked-language-model head."""
    require_packages("training", ("torch", "transformers", "bm25s"), "train")
    from bridge.models.artifact import resolve
    from bridge.training.recipes import train_sparse_encoder

    run.carry_out(
        "sparse_encoder",
        partial(
            train_sparse_encoder,
            miner=resolve(miner),
            teachers=[resolve(name) for name in teachers],
            flops=flops,
            queries_by_idf=queries == "idf",
        ),
    )


@cli_command("query-generator", of=command)
def query_generator(run: _Run) -> None:
    """Train a model that predicts the queries that a passage answers."""
    require_packages("training", ("torch", "transformers", "bm25s"), "train")
    from bridge.training.recipes import train_query_generator

    run.carry_out("query_generator", train_query_generator)


def _judged(folder: Path, split: str) -> "JudgedCollection":
    from bridge.evaluation.collections import load_collection
    from bridge.training.data import JudgedCollection, read_corpus

    collection = load_collection(folder, split)
    judged = collection.judged
    return JudgedCollection(collection.name, read_corpus(collection.corpus), judged.queries, judged.qrels)
