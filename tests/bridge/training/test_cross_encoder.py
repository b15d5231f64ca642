import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs the train extra")
pytest.importorskip("transformers", reason="training needs the train extra")
pytest.importorskip("bm25s", reason="training needs the train extra")

import torch

from bridge.training.base_model import base_tokenizer
from bridge.training.cross_encoder import (
    RankingLoss,
    RankingSettings,
    cross_encoder_from,
    score_pairs,
    scorer,
    small_cross_encoder_from,
)
from bridge.training.loop import LoopSettings, TrainingLoop
from bridge.training.mining import CandidateList, CandidateSet, PooledPassage
from bridge.training.teachers import TeacherLogits
from tests.toys import WORDS

TOPICS = WORDS[:8]


def toy_candidates(*, copies: int = 2) -> CandidateSet:
    """`copies` passages about each topic among other words; the query names the topic."""
    generator = random.Random(1)
    passages = [
        PooledPassage(" ".join([topic, *generator.sample(WORDS[20:], 4)]), "", "toy")
        for topic in TOPICS
        for _ in range(copies)
    ]
    lists = []
    for row in range(len(passages)):
        others = [other for other in range(len(passages)) if other // copies != row // copies]
        lists.append(
            CandidateList(
                query=TOPICS[row // copies],
                source="toy",
                positive=row,
                lexical=others,
                dense=others,
                cosines=[1.0] + [0.0] * (2 * len(others)),
                rivals=[],
            )
        )
    return CandidateSet(passages, lists)


SETTINGS = RankingSettings(lists_per_step=8, max_tokens=32)


def cosines(candidates: CandidateSet) -> TeacherLogits:
    return [found.cosines for found in candidates.lists]


def test_training_learns_a_toy_ranking(toy_base: Path, tmp_path: Path) -> None:
    torch.manual_seed(1)
    model = cross_encoder_from(toy_base)
    tokenizer = base_tokenizer(toy_base, 32)
    candidates = toy_candidates()
    loss = RankingLoss(model, tokenizer, candidates, cosines(candidates), SETTINGS, seed=1)
    with torch.inference_mode():
        before = float(loss(0, 1.0))
    TrainingLoop(
        model,
        loss=loss,
        evaluate=dict,
        settings=LoopSettings(total_steps=150, learning_rate=3e-3, warmup_steps=10, averaging=0.9),
        folder=tmp_path,
    ).run()
    with torch.inference_mode():
        assert float(loss(0, 1.0)) < 0.5 * before
    score = scorer(model, tokenizer)
    texts = [passage.text for passage in candidates.passages]
    best = [int(np.argmax(score(topic, texts))) // 2 for topic in TOPICS]
    assert best == list(range(len(TOPICS)))


def test_scores_do_not_depend_on_chunks_or_order(toy_base: Path) -> None:
    model = cross_encoder_from(toy_base).eval()
    tokenizer = base_tokenizer(toy_base, 32)
    pairs = [("wing flow", " ".join(WORDS[:length])) for length in (9, 1, 25, 4, 4, 17)]
    with torch.inference_mode():
        together = score_pairs(model, tokenizer, pairs, chunk_tokens=10_000)
        apart = torch.cat([score_pairs(model, tokenizer, [pair], chunk_tokens=1) for pair in pairs])
        chunked = score_pairs(model, tokenizer, pairs, chunk_tokens=40)
    assert together.tolist() == pytest.approx(apart.tolist(), abs=2e-2)
    assert together.tolist() == pytest.approx(chunked.tolist(), abs=2e-2)


def test_batches_depend_on_step_and_seed_alone(toy_base: Path) -> None:
    model = cross_encoder_from(toy_base).eval()
    tokenizer = base_tokenizer(toy_base, 32)
    candidates = toy_candidates()

    def value(step: int, seed: int) -> float:
        with torch.inference_mode():
            return float(RankingLoss(model, tokenizer, candidates, cosines(candidates), SETTINGS, seed=seed)(step, 0.5))

    assert value(3, 1) == value(3, 1)
    assert value(3, 1) != value(4, 1)
    assert value(3, 1) != value(3, 2)


def test_word_embeddings_and_the_first_layers_keep_still(toy_base: Path) -> None:
    model = cross_encoder_from(toy_base, n_frozen_layers=1)
    trained = {name for name, weight in model.named_parameters() if weight.requires_grad}
    assert "bert.embeddings.word_embeddings.weight" not in trained
    assert not any(name.startswith("bert.encoder.layer.0.") for name in trained)
    assert any(name.startswith("bert.encoder.layer.1.") for name in trained)
    assert "classifier.weight" in trained


def test_a_query_that_the_passage_does_not_answer_ranks_below_the_one_it_answers(toy_base: Path) -> None:
    """Rivals enter the list in place of a negative."""
    candidates = toy_candidates()
    with_rivals = CandidateSet(
        candidates.passages,
        [
            CandidateList(
                query=found.query,
                source=found.source,
                positive=found.positive,
                lexical=found.lexical,
                dense=found.dense,
                cosines=found.cosines,
                rivals=["bee"],
            )
            for found in candidates.lists
        ],
    )
    model = cross_encoder_from(toy_base).eval()
    tokenizer = base_tokenizer(toy_base, 32)
    with torch.inference_mode():
        plain = RankingLoss(model, tokenizer, candidates, cosines(candidates), SETTINGS, seed=1)(0, 1.0)
        rivalled = RankingLoss(model, tokenizer, with_rivals, cosines(with_rivals), SETTINGS, seed=1)(0, 1.0)
    assert float(plain) != float(rivalled)


def test_the_teachers_part_of_the_loss_is_nothing_for_a_model_that_agrees_with_them(toy_base: Path) -> None:
    candidates = toy_candidates(copies=1)
    settings = replace(SETTINGS, teacher_share=1.0, pointwise_share=0.0, trusted_margin=float("inf"))
    model = cross_encoder_from(toy_base).eval()
    with torch.no_grad():
        model.classifier.weight.mul_(50)  # an untrained model finds all passages alike
    tokenizer = base_tokenizer(toy_base, 32)
    score = scorer(model, tokenizer)
    own = [score(found.query, [candidates.passages[row].text for row in found.rows]) for found in candidates.lists]

    def loss(teachers: TeacherLogits) -> float:
        with torch.inference_mode():
            return float(RankingLoss(model, tokenizer, candidates, teachers, settings, seed=1)(0, 1.0))

    assert loss([scores.tolist() for scores in own]) == pytest.approx(0.0, abs=1e-4)
    assert loss([(-scores).tolist() for scores in own]) > 0.01


def test_whole_passages_are_read_to_their_end(toy_base: Path) -> None:
    candidates = toy_candidates()
    model = cross_encoder_from(toy_base).eval()
    windows = replace(SETTINGS, max_tokens=64, whole_share=0.0, window_words=(10, 20))

    def loss(settings: RankingSettings, last: str) -> float:
        long = [
            PooledPassage(" ".join([passage.text, *["ant"] * 40, last]), "", "toy") for passage in candidates.passages
        ]
        found = CandidateSet(long, candidates.lists)
        tokenizer = base_tokenizer(toy_base, settings.max_tokens)
        with torch.inference_mode():
            return float(RankingLoss(model, tokenizer, found, cosines(found), settings, seed=1)(0, 1.0))

    assert loss(windows, WORDS[30]) == loss(windows, WORDS[31])
    whole = windows.of_whole_passages()
    assert loss(whole, WORDS[30]) != loss(whole, WORDS[31])


def test_a_small_model_begins_with_the_words_of_its_base(toy_base: Path) -> None:
    model = small_cross_encoder_from(toy_base, n_layers=2, width=16)
    words = model.bert.embeddings.word_embeddings.weight.detach()
    base = cross_encoder_from(toy_base).bert.embeddings.word_embeddings.weight.detach()
    assert words.shape == (base.shape[0], 16)
    distances, base_distances = torch.pdist(words), torch.pdist(base)
    assert float(torch.corrcoef(torch.stack([distances, base_distances]))[0, 1]) > 0.5
    with torch.inference_mode():
        scores = score_pairs(model, base_tokenizer(toy_base, 32), [("wing", "wing flow")], chunk_tokens=100)
    assert scores.shape == (1,)
