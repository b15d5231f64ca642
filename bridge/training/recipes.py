"""The recipes, from pairs on disk to a trained transformers folder.

All results of a run are in its folder (see `bridge.training.run_folder`). A killed run can be resumed.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch

from bridge.errors import UsageError
from bridge.models.artifact import ModelFolder, verify
from bridge.models.encoder import Encoder
from bridge.training.base_model import PRECISION, base_tokenizer, training_device
from bridge.training.cross_encoder import RankingLoss, cross_encoder_from, scorer, small_cross_encoder_from
from bridge.training.data import (
    SOURCES,
    JudgedCollection,
    LabelledPair,
    pairs_of,
    sample_per_source,
    sentence_queries,
    source_named,
)
from bridge.training.development import ranking_figures
from bridge.training.encoder import (
    EmbeddingLoss,
    EmbeddingSettings,
    Pooling,
    SentenceEncoder,
    embedder,
    encoder_from,
    mix_in,
)
from bridge.training.loop import Figures, LoopSettings
from bridge.training.mining import CandidateSet, Embed, hardest, mine_candidates, without_overlaps
from bridge.training.query_generator import (
    GenerationLoss,
    query_generator_from,
    save_query_generator,
)
from bridge.training.run_folder import RunFolder
from bridge.training.sizes import HELD_OUT_QUERIES, Shape, Size
from bridge.training.sparse_encoder import TermEncoder
from bridge.training.teachers import all_embed

_MINING_TOKENS = 128
_SCALED_BY = 64
"""So many queries and passages tell the scale of a sparse encoder's weights."""

Student = TypeVar("Student", SentenceEncoder, TermEncoder)


@dataclass(frozen=True, slots=True)
class TrainingData:
    """Data of a run. `collections` are trained on without their held-out queries; `watched` are only evaluated on."""

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
    miner: ModelFolder | None = None,
    whole: bool = False,
    teacher_share: float | None = None,
) -> Path:
    """Trains on candidate lists mined with `miner`, an encoder, or else with `base`; returns the trained folder.

    `base`: a BERT in transformers' layout; without a miner one that was trained to embed sentences. `teachers` are
    imitated, beside BM25 and what mines, with `teacher_share` of the loss; None leaves it at the size's. `start`: a
    trained folder of the base's shape to start from. `whole`: see `RankingSettings.of_whole_passages`.

    Raises:
        UsageError: see `RunFolder.claimed`; or there is no training data.
        ModelError: the miner or a teacher cannot do its part.
    """
    run = RunFolder.claimed(folder, resume=resume)
    torch.manual_seed(seed)
    settings = size.ranking.of_whole_passages() if whole else size.ranking
    if teacher_share is not None:
        settings = replace(settings, teacher_share=teacher_share)

    def embed(max_tokens: int) -> Embed:
        return embedder(base, max_tokens=max_tokens) if miner is None else _encode_with(miner)

    candidates = run.candidates(
        lambda: _mined(data, embed(_MINING_TOKENS), size, seed=seed), at_least=settings.lists_per_step
    )
    logits = run.logits(candidates, teachers)
    development = run.development(
        (*data.collections, *data.watched),
        lambda: embed(settings.max_tokens),
        n_queries=size.watched_queries,
        depth=size.watched_depth,
    )
    if shape.n_layers is None:
        model = cross_encoder_from(start or base, n_frozen_layers=size.n_frozen_ranking_layers)
    else:
        model = small_cross_encoder_from(base, n_layers=shape.n_layers, width=shape.width)
    model = model.to(training_device(), PRECISION)
    tokenizer = base_tokenizer(base, settings.max_tokens)

    def evaluate() -> Figures:
        return ranking_figures(
            development, scorer(model, tokenizer), n_queries=size.watched_queries, depth=size.watched_depth
        )

    rate = size.ranking_loop.learning_rate * shape.learning_rate_factor
    loss = RankingLoss(model, tokenizer, candidates, logits, settings, seed=seed)
    run.train(model, loss=loss, evaluate=evaluate, settings=replace(size.ranking_loop, learning_rate=rate))
    return run.save_bert(model, base)


def train_encoder(
    base: Path,
    data: TrainingData,
    size: Size,
    folder: Path,
    *,
    pooling: Pooling,
    teachers: Sequence[ModelFolder],
    seed: int,
    resume: bool,
    base_share: float = 0.0,
) -> Path:
    """Trains a bi-encoder on mined negatives; returns the trained folder.

    `base`: any BERT in transformers' layout. A base that was never trained to embed mines badly: then put candidates
    mined by another model into `folder`. `teachers` are imitated, beside the base. If all teachers are encoders, they
    teach every query against every passage of its batch; with a cross-encoder among them, each query learns only from
    its own list. `base_share`: share of the base's weights in the result (see `mix_in`).

    Raises:
        UsageError: see `RunFolder.claimed`; or there is no training data.
        ModelError: a teacher cannot teach.
    """
    run = RunFolder.claimed(folder, resume=resume)
    torch.manual_seed(seed)
    settings = size.embedding
    model = _train_bi_encoder(
        run,
        data,
        size,
        lambda _: encoder_from(base, max_tokens=settings.max_tokens, pooling=pooling),
        lambda: embedder(base, max_tokens=_MINING_TOKENS, pooling=pooling),
        settings=settings,
        loop=size.embedding_loop,
        teachers=teachers,
        seed=seed,
    )
    mix_in(model, encoder_from(base, max_tokens=size.embedding.max_tokens, pooling=pooling), base_share)
    return run.save_bert(model.bert, base)


def train_sparse_encoder(
    base: Path,
    data: TrainingData,
    size: Size,
    folder: Path,
    *,
    miner: ModelFolder,
    teachers: Sequence[ModelFolder],
    flops: float,
    queries_by_idf: bool,
    seed: int,
    resume: bool,
) -> Path:
    """Trains a sparse encoder on mined negatives; returns the trained folder.

    `base`: a masked language model of BERT's architecture. `miner`: the encoder that finds negatives; it teaches beside
    `teachers`, as in `train_encoder`. `flops`: price of the weights. `queries_by_idf`: a query's pieces weigh by their
    inverse document frequency in the passages, else as the model says.

    Raises:
        UsageError: see `RunFolder.claimed`; or there is no training data.
        ModelError: base, miner or a teacher cannot do their part.
    """
    run = RunFolder.claimed(folder, resume=resume)
    torch.manual_seed(seed)
    settings = size.sparse

    def untrained(candidates: CandidateSet) -> TermEncoder:
        texts = [passage.text for passage in candidates.passages]
        model = TermEncoder.of(
            base, max_tokens=settings.max_tokens, flops=flops, idf_texts=texts if queries_by_idf else None
        )
        some = candidates.lists[:: max(1, len(candidates.lists) // _SCALED_BY)]
        model.fit_scale([each.query for each in some], [texts[each.positive] for each in some])
        return model

    model = _train_bi_encoder(
        run,
        data,
        size,
        untrained,
        partial(_encode_with, miner),
        settings=settings,
        loop=size.sparse_loop,
        teachers=teachers,
        seed=seed,
    )
    return run.save_bert(model.bert, base)


def _train_bi_encoder(
    run: RunFolder,
    data: TrainingData,
    size: Size,
    untrained: Callable[[CandidateSet], Student],
    embed: Callable[[], Embed],
    *,
    settings: EmbeddingSettings,
    loop: LoopSettings,
    teachers: Sequence[ModelFolder],
    seed: int,
) -> Student:
    """Mines and chooses development candidates with what `embed` opens, and trains `untrained` to the end."""

    def mined() -> CandidateSet:
        found = _mined(data, embed(), size, seed=seed)
        return found if all_embed(teachers) else hardest(found, size.taught_per_kind)

    candidates = run.candidates(mined, at_least=settings.lists_per_step)
    teaching = run.teaching(candidates, teachers, embed)
    development = run.development(
        (*data.collections, *data.watched), embed, n_queries=size.watched_queries, depth=size.watched_depth
    )
    model = untrained(candidates)
    model.to(training_device(), PRECISION)
    loss = EmbeddingLoss(model, candidates, teaching, settings, seed=seed)
    if not loss.n_lists:
        raise UsageError(
            f"the teachers think that none of {len(candidates.lists)} queries is answered by its passage: give better "
            f"pairs, or other teachers"
        )

    def evaluate() -> Figures:
        return ranking_figures(development, model.score, n_queries=size.watched_queries, depth=size.watched_depth)

    run.train(model, loss=loss, evaluate=evaluate, settings=loop)
    return model


def train_query_generator(base: Path, data: TrainingData, size: Size, folder: Path, *, seed: int, resume: bool) -> Path:
    """Trains on relevant pairs, of which one in 200 is held out for evaluation; returns the trained folder.

    Raises:
        UsageError: see `RunFolder.claimed`.
    """
    run = RunFolder.claimed(folder, resume=resume)
    torch.manual_seed(seed)
    limits = {source.name: source.generation_pairs for source in SOURCES.values()}
    relevant = [pair for pair in data.all_pairs() if pair.relevant]
    pairs = sample_per_source(relevant, limits, seed=seed)
    model = query_generator_from(
        base, n_encoder_layers=4, n_decoder_layers=2, n_frozen_layers=size.n_frozen_encoder_layers
    ).to(training_device(), PRECISION)
    tokenizer = base_tokenizer(base)
    training = [pair for number, pair in enumerate(pairs) if number % 200]
    held_out = GenerationLoss(model, tokenizer, pairs[::200], size.generation, seed=seed)

    def evaluate() -> Figures:
        with torch.inference_mode():
            losses = [float(held_out(step, 1.0)) for step in range(held_out.epochs.n_steps)]
        return {"held_out/loss": sum(losses) / len(losses)}

    loss = GenerationLoss(model, tokenizer, training, size.generation, seed=seed)
    run.train(model, loss=loss, evaluate=evaluate, settings=size.generation_loop)
    save_query_generator(model, base, run.model)
    return run.model


def _encode_with(miner: ModelFolder) -> Embed:
    verify(miner, kind="encoder")
    return Encoder.load(miner).encode


def _mined(data: TrainingData, embed: Embed, size: Size, *, seed: int) -> CandidateSet:
    limits = {source.name: source.ranking_pairs for source in SOURCES.values()}
    available = data.all_pairs()
    pairs = sample_per_source(available, limits, seed=seed)
    read = {pair.passage for pair in pairs}
    others = [pair for pair in available if source_named(pair.source).sentence_pairs and pair.passage not in read]
    pairs += sentence_queries(others, {source.name: source.sentence_pairs for source in SOURCES.values()}, seed=seed)
    return without_overlaps(mine_candidates(pairs, embed, depth=size.mining_depth))
