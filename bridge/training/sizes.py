"""Presets by machine: the sizes of models, batches and runs."""

from dataclasses import dataclass, replace

from bridge.training.cross_encoder import RankingSettings
from bridge.training.encoder import EmbeddingSettings
from bridge.training.loop import LoopSettings
from bridge.training.query_generator import GenerationSettings

HELD_OUT_QUERIES = 100
"""Queries of each collection for evaluation, never trained on."""


@dataclass(frozen=True, slots=True)
class Size:
    """One preset of everything that depends on the machine.

    `mining_depth`: negatives are drawn from this many of the best passages. An encoder learns from the
    `taught_per_kind` hardest negatives of BM25 and of the bi-encoder, which the teachers score. `watched_queries` and
    `watched_depth`: how many queries of a development set, and how many candidates of each, an evaluation reranks.
    """

    ranking: RankingSettings
    ranking_loop: LoopSettings
    embedding: EmbeddingSettings
    embedding_loop: LoopSettings
    sparse: EmbeddingSettings
    sparse_loop: LoopSettings
    generation: GenerationSettings
    generation_loop: LoopSettings
    n_frozen_ranking_layers: int
    n_frozen_encoder_layers: int
    mining_depth: int
    taught_per_kind: int
    watched_queries: int
    watched_depth: int

    def within(self, minutes: float) -> "Size":
        """The same, but each run ends after `minutes` at the latest."""
        names = ("ranking_loop", "embedding_loop", "sparse_loop", "generation_loop")
        loops = {name: getattr(self, name) for name in names}
        return replace(self, **{name: replace(loop, time_limit_s=minutes * 60) for name, loop in loops.items()})


_CPU = Size(
    ranking=RankingSettings(),
    ranking_loop=LoopSettings(total_steps=8000, learning_rate=1.5e-4, warmup_steps=150),
    embedding=EmbeddingSettings(),
    embedding_loop=LoopSettings(total_steps=1800, learning_rate=5e-5, warmup_steps=60),
    sparse=EmbeddingSettings(),
    sparse_loop=LoopSettings(total_steps=3000, learning_rate=2e-4, warmup_steps=100),
    generation=GenerationSettings(),
    generation_loop=LoopSettings(total_steps=4000, learning_rate=5e-4, warmup_steps=150),
    n_frozen_ranking_layers=1,
    n_frozen_encoder_layers=3,
    mining_depth=30,
    taught_per_kind=5,
    watched_queries=25,
    watched_depth=30,
)

_SMOKE_LOOP = LoopSettings(total_steps=40, learning_rate=1e-3, warmup_steps=5, averaging=0.8, log_every_steps=5)
"""Runs every step once; the model learns nothing useful."""

SIZES = {
    "smoke": replace(
        _CPU,
        ranking=replace(_CPU.ranking, lists_per_step=4, max_tokens=48),
        ranking_loop=_SMOKE_LOOP,
        embedding=replace(_CPU.embedding, lists_per_step=4, max_tokens=48),
        embedding_loop=_SMOKE_LOOP,
        sparse=replace(_CPU.sparse, lists_per_step=4, max_tokens=48),
        sparse_loop=_SMOKE_LOOP,
        generation=replace(_CPU.generation, pairs_per_step=8, max_passage_tokens=48),
        generation_loop=_SMOKE_LOOP,
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
        embedding=replace(_CPU.embedding, lists_per_step=128, negatives=4, max_tokens=256, chunk_tokens=131_072),
        embedding_loop=LoopSettings(total_steps=4000, learning_rate=4e-5, warmup_steps=200, averaging=0.999),
        sparse=replace(_CPU.sparse, lists_per_step=128, negatives=4, max_tokens=256, chunk_tokens=32_768),
        sparse_loop=LoopSettings(total_steps=8000, learning_rate=2e-4, warmup_steps=300, averaging=0.999),
        generation=replace(_CPU.generation, pairs_per_step=256, max_passage_tokens=256, whole_share=0.5),
        generation_loop=LoopSettings(total_steps=8000, learning_rate=5e-4, warmup_steps=300, averaging=0.999),
        n_frozen_ranking_layers=0,
        n_frozen_encoder_layers=0,
        mining_depth=100,
        taught_per_kind=10,
        watched_queries=HELD_OUT_QUERIES,
        watched_depth=50,
    ),
}


@dataclass(frozen=True, slots=True)
class Shape:
    """A cross-encoder's size: the base's if `n_layers` is None, else `n_layers` untrained layers of `width`.
    `learning_rate_factor` multiplies the size's rate, because smaller models tolerate larger steps."""

    n_layers: int | None = None
    width: int = 0
    learning_rate_factor: float = 1.0


SHAPES = {"base": Shape(), "tiny": Shape(n_layers=2, width=128, learning_rate_factor=10.0)}
