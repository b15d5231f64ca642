from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs the train extra")
pytest.importorskip("transformers", reason="training needs the train extra")
pytest.importorskip("bm25s", reason="training needs the train extra")

import torch

from bridge.training.encoder import EmbeddingLoss, EmbeddingSettings, SentenceEncoder, encoder_from, mix_in
from bridge.training.mining import CandidateList, CandidateSet, PooledPassage, hardest
from bridge.training.teachers import ListTeaching, VectorTeaching
from tests.toys import WORDS

SETTINGS = EmbeddingSettings(lists_per_step=4, negatives=2, max_tokens=32, chunk_tokens=64)


def candidates(n: int = 8, *, domain: str = "toys") -> CandidateSet:
    """Query and passage share one word; the next two passages are mined."""
    passages = [PooledPassage(f"{WORDS[i]} {WORDS[20 + i]}", "", domain) for i in range(n)]
    lists = [
        CandidateList(
            query=WORDS[i],
            source=domain,
            positive=i,
            lexical=[(i + 1) % n],
            dense=[(i + 2) % n, (i + 3) % n],
            cosines=[0.5, 0.3, 0.2, 0.1],
            rivals=[],
        )
        for i in range(n)
    ]
    return CandidateSet(passages, lists)


def loss_of(base: Path, found: CandidateSet, teachers: list[list[float]], *, share: float = 0.0) -> EmbeddingLoss:
    teaching = ListTeaching(found, teachers)
    teaching.share = share
    return EmbeddingLoss(encoder_from(base, max_tokens=32, pooling="mean"), found, teaching, SETTINGS, seed=1)


def answers_of(loss: EmbeddingLoss, number: int, rows: list[int], positive: int) -> list[bool]:
    taught = torch.from_numpy(loss._teaching.logits([number], rows))
    [answers] = loss._answers([number], rows, torch.tensor([rows.index(positive)]), taught).tolist()
    return list(answers)


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_embeddings_are_unit_rows_in_input_order_whatever_the_batch(toy_base: Path, pooling: str) -> None:
    encoder = SentenceEncoder.of(toy_base, max_tokens=32, pooling=pooling).eval()  # type: ignore[arg-type]
    texts = [" ".join(WORDS[: 1 + n % 7]) + f" {WORDS[n]}" for n in range(20)]
    together = encoder.embed(texts)
    assert np.linalg.norm(together, axis=1) == pytest.approx(1.0, abs=1e-5)
    with torch.inference_mode():
        alone = np.concatenate([encoder([text], chunk_tokens=8).numpy() for text in texts])
    assert together == pytest.approx(alone, abs=1e-5)


def test_training_brings_a_query_to_its_passage(toy_base: Path) -> None:
    loss = loss_of(toy_base, candidates(), [[1.0, 0.0, 0.0, 0.0]] * 8)
    encoder = loss._encoder
    assert isinstance(encoder, SentenceEncoder)
    optimizer = torch.optim.AdamW([w for w in encoder.parameters() if w.requires_grad], lr=2e-3)

    def whole_loss() -> float:
        with torch.inference_mode():
            return float(sum(loss(step, 1.0).item() for step in range(loss.epochs.n_steps)))

    before = whole_loss()
    for step in range(30):
        optimizer.zero_grad()
        loss(step, step / 30).backward()
        optimizer.step()
    assert whole_loss() < before / 2


def test_a_student_of_encoders_comes_to_rank_as_they_do(toy_base: Path) -> None:
    found = candidates()
    # These teachers take the passage after the judged one for the answer: neither labels nor words say so.
    sure = np.eye(8, dtype=np.float16) * 9
    encoder = encoder_from(toy_base, max_tokens=32, pooling="mean")
    loss = EmbeddingLoss(
        encoder,
        found,
        VectorTeaching(sure, np.roll(np.eye(8, dtype=np.float16), 1, axis=0)),
        EmbeddingSettings(lists_per_step=8, negatives=2, max_tokens=32, doubted_margin=20.0),
        seed=1,
    )
    optimizer = torch.optim.AdamW([w for w in encoder.parameters() if w.requires_grad], lr=2e-3)
    for step in range(60):
        optimizer.zero_grad()
        loss(step, step / 60).backward()
        optimizer.step()
    queries, passages = (
        encoder.embed([each.query for each in found.lists]),
        encoder.embed([p.text for p in found.passages]),
    )
    assert (queries @ passages.T).argmax(axis=1).tolist() == [1, 2, 3, 4, 5, 6, 7, 0]


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_trained_weights_go_back_to_the_base_by_its_share(toy_base: Path, share: float) -> None:
    base = encoder_from(toy_base, max_tokens=32, pooling="mean")
    trained = encoder_from(toy_base, max_tokens=32, pooling="mean")
    with torch.no_grad():
        for weight in trained.parameters():
            weight.add_(1.0)
    mix_in(trained, base, share)
    for name, weight in trained.named_parameters():
        moved = (weight - dict(base.named_parameters())[name]).detach()
        assert moved.numpy() == pytest.approx(1.0 - share, abs=1e-4)


def test_equal_steps_give_equal_losses(toy_base: Path) -> None:
    first, second = (loss_of(toy_base, candidates(), [[1.0, 0.0, 0.0, 0.0]] * 8, share=0.5) for _ in range(2))
    assert first(5, 0.0).item() == pytest.approx(second(5, 0.9).item(), abs=1e-5)


def test_what_the_teachers_put_above_the_judged_passage_is_no_negative(toy_base: Path) -> None:
    found = candidates()
    trusted = loss_of(toy_base, found, [[0.0, -1.0, -1.0, -1.0]] * 8)
    doubted = loss_of(toy_base, found, [[0.0, 2.5, 2.5, 2.5]] * 8)
    assert answers_of(doubted, 0, list(range(8)), 0) == [False, True, True, True, False, False, False, False]
    assert not any(answers_of(trusted, 0, list(range(8)), 0))


def test_another_answer_of_the_same_query_is_no_negative(toy_base: Path) -> None:
    found = candidates()
    twice = CandidateList("again", "toys", 0, [2], [], [0.5, 0.1], [])
    again = CandidateList("again", "toys", 5, [2], [], [0.5, 0.1], [])
    both = CandidateSet(found.passages, [twice, again])
    loss = loss_of(toy_base, both, [[0.0, -1.0]] * 2)
    assert answers_of(loss, 0, [0, 2, 5], 0) == [False, False, True]


def test_a_query_that_comes_back_to_another_passage_is_left_out(toy_base: Path) -> None:
    teachers = [[0.0, 0.0, 0.0, 0.0]] * 7 + [[0.0, 9.0, 0.0, 0.0]]
    assert loss_of(toy_base, candidates(), teachers).n_lists == 7


def test_batches_hold_one_domain_and_an_epoch_every_query_once(toy_base: Path) -> None:
    one, two = candidates(6), candidates(5, domain="others")
    shifted = [
        CandidateList(
            found.query, found.source, found.positive + 6, [row + 6 for row in found.lexical],
            [row + 6 for row in found.dense], found.cosines, [],
        )
        for found in two.lists
    ]  # fmt: skip
    loss = loss_of(toy_base, CandidateSet(one.passages + two.passages, one.lists + shifted), [[0.0] * 4] * 11)
    batches = [loss.epochs.batch(step) for step in range(loss.epochs.n_steps)]
    seen = sorted((domain, number) for domain, numbers in batches for number in numbers)
    assert seen == [("others", n) for n in range(6, 11)] + [("toys", n) for n in range(6)]


def test_the_hardest_negatives_keep_their_cosines() -> None:
    [first, *_] = hardest(candidates(), 1).lists
    assert (first.lexical, first.dense, first.cosines) == ([1], [2], [0.5, 0.3, 0.2])
