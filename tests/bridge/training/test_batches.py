"""Windows, chunks and epochs: what a batch holds."""

import random

import numpy as np
import pytest

from bridge.training.batches import Epochs, best_window, padded_chunks, rarity
from tests.toys import toy_tokenizer

FILLER = " ".join(f"filler{number}" for number in range(40))


def test_a_short_passage_comes_back_whole() -> None:
    passage = "wing  pressure\nflow"
    assert best_window("wing", passage, 3, {}) == passage


@pytest.mark.parametrize(
    "passage",
    [f"{FILLER} the answer is here", f"the answer is here {FILLER}", f"{FILLER} the answer is here {FILLER}"],
    ids=["at the end", "at the start", "in the middle"],
)
def test_the_window_holds_the_words_of_the_query_wherever_they_stand(passage: str) -> None:
    window = best_window("Answer?", passage, 8, rarity([passage]))
    assert "answer" in window.split()
    assert len(window.split()) == 8
    assert window in passage


def test_one_rare_word_outweighs_two_frequent_ones() -> None:
    weights = rarity(["of the", "of the", "of the", "of the", "of the boundary"])
    passage = f"of the {FILLER} boundary"
    assert "boundary" in best_window("of the boundary", passage, 8, weights)


def test_rarer_words_weigh_more() -> None:
    weights = rarity(["Wing flow", "flow", "flow flow"])
    assert weights["wing"] > weights["flow"] > 0


def test_every_epoch_holds_every_batch_in_another_order_which_depends_on_the_seed_alone() -> None:
    def shuffled(generator: random.Random) -> list[int]:
        return generator.sample(range(20), 20)

    epochs = Epochs(shuffled, seed=3)
    first, second = ([epochs.batch(step) for step in range(start, start + 20)] for start in (0, 20))
    assert sorted(first) == sorted(second) == list(range(20))
    assert first != second
    resumed = Epochs(shuffled, seed=3)
    assert [resumed.batch(step) for step in range(25, 40)] == second[5:]
    assert resumed.random(7).random() == epochs.random(7).random() != epochs.random(8).random()


def test_chunks_hold_every_text_once_and_no_more_tokens_than_allowed() -> None:
    texts = ["cat", "cat dog " * 20, "red dress", "the cat and the dog", "write a file " * 30]
    encodings = toy_tokenizer().encode_batch(texts)
    seen: list[int] = []
    for rows, inputs in padded_chunks(encodings, 64):
        assert inputs.shape[:2] == (3, len(rows))
        assert inputs.shape[2] % 16 == 0
        assert len(rows) == 1 or inputs[0].size <= 64
        for row, ids, mask in zip(rows, inputs[0], inputs[1], strict=True):
            assert np.array_equal(ids[mask == 1], encodings[row].ids)
        seen += rows
    assert sorted(seen) == list(range(len(texts)))
