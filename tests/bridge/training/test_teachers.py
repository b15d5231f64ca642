from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs the train extra")
pytest.importorskip("bm25s", reason="training needs the train extra")

from bridge.training.mining import CandidateList, CandidateSet, PooledPassage
from bridge.training.teachers import fitted_weights, load_logits, save_logits, teacher_logits
from tests.toys import make_toy_cross_encoder, make_toy_encoder


def candidates() -> CandidateSet:
    passages = [PooledPassage(text, "", "toy") for text in ("wing flow", "wing heat", "cat dog", "fish bird")]
    lists = [
        CandidateList("wing flow", "toy", 0, [1, 2], [1, 3], [0.1, 0.2, 0.0, 0.2, 0.0], []),
        CandidateList("cat dog", "toy", 2, [0, 1], [3, 1], [0.1, 0.2, 0.0, 0.2, 0.0], []),
    ]
    return CandidateSet(passages, lists)


def test_a_teacher_that_knows_the_answers_outweighs_one_that_does_not() -> None:
    generator = np.random.default_rng(1)
    features = []
    for _ in range(400):
        knowing = np.r_[1.0, generator.uniform(0, 0.9, 5)]
        features.append(np.stack([knowing, generator.uniform(0, 1, 6)], axis=1).astype(np.float32))
    knowing_weight, guessing_weight = fitted_weights(features)
    assert knowing_weight > 5 * abs(guessing_weight)


@pytest.mark.parametrize("make", [make_toy_encoder, make_toy_cross_encoder])
def test_every_passage_of_a_list_has_a_logit_and_the_answer_the_highest(make: object, tmp_path: Path) -> None:
    assert callable(make)
    logits = teacher_logits(candidates(), [make(tmp_path / "teacher")])
    for found, row in zip(candidates().lists, logits, strict=True):
        assert len(row) == len(found.rows)
        assert int(np.argmax(row)) == 0
        by_passage: dict[int, float] = {}
        for passage, logit in zip(found.rows[1:], row[1:], strict=True):
            assert by_passage.setdefault(passage, logit) == pytest.approx(logit)


def test_logits_survive_the_disk(tmp_path: Path) -> None:
    save_logits([[0.5, -1.25], [3.0]], tmp_path / "logits.json.gz")
    assert load_logits(tmp_path / "logits.json.gz") == [[0.5, -1.25], [3.0]]
