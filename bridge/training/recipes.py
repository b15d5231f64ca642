"""The two recipes, from pairs on disk to a trained transformers folder.

Everything that a run makes lies in its folder: mined candidates, what the teachers think of
them, development sets, checkpoint, log (`log.csv`, `log.png`) and at the end `model/`, which
`bridge.training.export` turns into a model folder. A run that was killed goes on from there.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from tokenizers import Tokenizer

from bridge.errors import UsageError
from bridge.models.artifact import ModelFolder
from bridge.training.cross_encoder import (
    RankingLoss,
    RankingSettings,
    cross_encoder_from,
    pair_tokenizer,
    scorer,
    small_cross_encoder_from,
)
from bridge.training.data import SOURCES, JudgedCollection, LabelledPair, pairs_of, sample_per_source
from bridge.training.development import (
    development_set,
    load_development_sets,
    ranking_figures,
    save_development_sets,
)
from bridge.training.device import PRECISION, training_device
from bridge.training.embedding_teacher import EmbeddingTeacher
from bridge.training.log_plot import draw_log
from bridge.training.loop import Figures, LoopSettings, TrainingLoop
from bridge.training.mining import load_candidates, mine_candidates, save_candidates, without_overlaps
from bridge.training.query_generator import (
    GenerationLoss,
    GenerationSettings,
    query_generator_from,
    save_query_generator,
)
from bridge.training.teachers import load_logits, save_logits, teacher_logits

logger = logging.getLogger(__name__)

MODEL = "model"
"""Name of the trained transformers folder in a run's folder."""

HELD_OUT_QUERIES = 100
"""Queries of each collection that are watched, never trained on."""


@dataclass(frozen=True, slots=True)
class Size:
    """One preset of everything that depends on the machine.

    `mining_depth`: negatives are taken from so many of the best. `watched_queries` and
    `watched_depth`: how much of each development set every evaluation reranks.
    """

    ranking: RankingSettings
    ranking_loop: LoopSettings
    generation: GenerationSettings
    generation_loop: LoopSettings
    n_frozen_ranking_layers: int
    n_frozen_encoder_layers: int
    mining_depth: int
    watched_queries: int
    watched_depth: int


_CPU = Size(
    ranking=RankingSettings(),
    ranking_loop=LoopSettings(total_steps=8000, learning_rate=1.5e-4, warmup_steps=150),
    generation=GenerationSettings(),
    generation_loop=LoopSettings(total_steps=4000, learning_rate=5e-4, warmup_steps=150),
    n_frozen_ranking_layers=1,
    n_frozen_encoder_layers=3,
    mining_depth=30,
    watched_queries=25,
    watched_depth=30,
)

SIZES = {
    # Everything runs through once; nothing useful is learnt.
    "smoke": replace(
        _CPU,
        ranking=replace(_CPU.ranking, lists_per_step=4, max_tokens=48),
        ranking_loop=LoopSettings(total_steps=40, learning_rate=1e-3, warmup_steps=5, averaging=0.8, log_every_steps=5),
        generation=replace(_CPU.generation, pairs_per_step=8, max_passage_tokens=48),
        generation_loop=LoopSettings(
            total_steps=40, learning_rate=1e-3, warmup_steps=5, averaging=0.8, log_every_steps=5
        ),
        n_frozen_ranking_layers=0,
        mining_depth=10,
        watched_queries=5,
        watched_depth=10,
    ),
    "cpu": _CPU,
    "gpu": replace(
        _CPU,
        ranking=replace(
            _CPU.ranking,
            lists_per_step=64,
            negatives=15,
            max_tokens=320,
            chunk_tokens=131_072,
            window_words=(40, 160),
            whole_share=0.4,
        ),
        ranking_loop=LoopSettings(total_steps=6000, learning_rate=1.5e-4, warmup_steps=300, averaging=0.999),
        generation=replace(_CPU.generation, pairs_per_step=256, max_passage_tokens=256, whole_share=0.5),
        generation_loop=LoopSettings(total_steps=8000, learning_rate=5e-4, warmup_steps=300, averaging=0.999),
        n_frozen_ranking_layers=0,
        n_frozen_encoder_layers=0,
        mining_depth=100,
        watched_queries=HELD_OUT_QUERIES,
        watched_depth=50,
    ),
}


@dataclass(frozen=True, slots=True)
class Shape:
    """A cross-encoder's size: that of its base where `n_layers` is None, else so many layers of `width`, from
    scratch. `learning_rate_factor` multiplies the size's rate: fewer weights bear larger steps."""

    n_layers: int | None = None
    width: int = 0
    learning_rate_factor: float = 1.0


SHAPES = {"base": Shape(), "tiny": Shape(n_layers=2, width=128, learning_rate_factor=10.0)}


@dataclass(frozen=True, slots=True)
class TrainingData:
    """What a run learns from and is watched on; `collections` are trained on without their
    held-out queries, `watched` are not trained on at all.
    """

    pairs: Sequence[LabelledPair]
    collections: Sequence[JudgedCollection]
    watched: Sequence[JudgedCollection]

    def all_pairs(self) -> list[LabelledPair]:
        judged = [pair for c in self.collections for pair in pairs_of(c, held_out=HELD_OUT_QUERIES)]
        return [*self.pairs, *judged]


def train_cross_encoder(
    base: Path,
    data: TrainingData,
    size: Size,
    folder: Path,
    *,
    shape: Shape,
    teachers: Sequence[ModelFolder],
    start: Path | None,
    seed: int,
    resume: bool,
) -> Path:
    """Train on candidate lists mined with `base` as the bi-encoder; gives the trained folder.

    `base`: a BERT in transformers' layout that was trained to embed sentences. `teachers` are imitated in part,
    beside the base. `start`: a trained folder to go on from, of the base's shape.

    Raises:
        UsageError: see `_claim`; or there is nothing to train on.
        ModelError: a teacher cannot teach.
    """
    _claim(folder, resume=resume)
    torch.manual_seed(seed)
    candidates_file, logits_file, watched_file = (
        folder / name for name in ("candidates.json.gz", "teachers.json.gz", "development.json")
    )
    if not candidates_file.exists():
        limits = {source.name: source.ranking_pairs for source in SOURCES.values()}
        pairs = sample_per_source(data.all_pairs(), limits, seed=seed)
        embed = EmbeddingTeacher(base, max_tokens=128)
        mined = mine_candidates(pairs, embed, depth=size.mining_depth)
        save_candidates(without_overlaps(mined), candidates_file)
    candidates = load_candidates(candidates_file)
    if len(candidates.lists) < size.ranking.lists_per_step:
        raise UsageError(
            f"{len(candidates.lists)} queries with negatives, at least {size.ranking.lists_per_step} are needed: "
            f"give more pairs, or passages that differ"
        )
    if not logits_file.exists():
        save_logits(teacher_logits(candidates, teachers), logits_file)
    if not watched_file.exists():
        embed = EmbeddingTeacher(base, max_tokens=size.ranking.max_tokens)
        watched = [
            development_set(collection, embed, n_queries=size.watched_queries, depth=size.watched_depth)
            for collection in (*data.collections, *data.watched)
        ]
        save_development_sets(watched, watched_file)
    development = load_development_sets(watched_file)
    if shape.n_layers is None:
        model = cross_encoder_from(start or base, n_frozen_layers=size.n_frozen_ranking_layers)
    else:
        model = small_cross_encoder_from(base, n_layers=shape.n_layers, width=shape.width)
    model = model.to(training_device(), PRECISION)
    tokenizer = pair_tokenizer(base, size.ranking.max_tokens)

    def evaluate() -> Figures:
        return ranking_figures(
            development, scorer(model, tokenizer), n_queries=size.watched_queries, depth=size.watched_depth
        )

    rate = size.ranking_loop.learning_rate * shape.learning_rate_factor
    loop = TrainingLoop(
        model,
        loss=RankingLoss(model, tokenizer, candidates, load_logits(logits_file), size.ranking, seed=seed),
        evaluate=evaluate,
        settings=replace(size.ranking_loop, learning_rate=rate),
        folder=folder,
    )
    _run(loop, folder, resume=resume)
    model.save_pretrained(folder / MODEL)
    (folder / MODEL / "tokenizer.json").write_bytes((base / "tokenizer.json").read_bytes())
    return folder / MODEL


def train_query_generator(base: Path, data: TrainingData, size: Size, folder: Path, *, seed: int, resume: bool) -> Path:
    """Train on relevant pairs, one in 200 held out to be watched; gives the trained folder.

    Raises:
        UsageError: see `_claim`.
    """
    _claim(folder, resume=resume)
    torch.manual_seed(seed)
    limits = {source.name: source.generation_pairs for source in SOURCES.values()}
    relevant = [pair for pair in data.all_pairs() if pair.relevant]
    pairs = sample_per_source(relevant, limits, seed=seed)
    model = query_generator_from(
        base, n_encoder_layers=4, n_decoder_layers=2, n_frozen_layers=size.n_frozen_encoder_layers
    ).to(training_device(), PRECISION)
    tokenizer = Tokenizer.from_file(str(base / "tokenizer.json"))
    training = [pair for number, pair in enumerate(pairs) if number % 200]
    held_out = GenerationLoss(model, tokenizer, pairs[::200], size.generation, seed=seed)

    def evaluate() -> Figures:
        with torch.inference_mode():
            losses = [float(held_out(step, 1.0)) for step in range(held_out.steps_per_epoch)]
        return {"held_out/loss": sum(losses) / len(losses)}

    loop = TrainingLoop(
        model,
        loss=GenerationLoss(model, tokenizer, training, size.generation, seed=seed),
        evaluate=evaluate,
        settings=size.generation_loop,
        folder=folder,
    )
    _run(loop, folder, resume=resume)
    save_query_generator(model, base, folder / MODEL)
    return folder / MODEL


def _claim(folder: Path, *, resume: bool) -> None:
    """Makes a run's folder.

    Raises:
        UsageError: it holds a run already, and that is not to be resumed.
    """
    if not resume and folder.exists() and any(folder.iterdir()):
        raise UsageError(f"--out {folder} is not empty: add --resume to go on with the run in it, or name a new folder")
    folder.mkdir(parents=True, exist_ok=True)


def _run(loop: TrainingLoop, folder: Path, *, resume: bool) -> None:
    if resume and loop.resume():
        logger.info("resumed step=%d", loop.step)
    loop.run()
    draw_log(folder / "log.csv", folder / "log.png")
