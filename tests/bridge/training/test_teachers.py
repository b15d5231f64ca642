from pathlib import Path

import msgspec
import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs the train extra")
pytest.importorskip("bm25s", reason="training needs the train extra")

from bridge.models.encoder import Encoder
from bridge.training.mining import CandidateList, CandidateSet, PooledPassage
from bridge.training.teachers import UNKNOWN, ListTeaching, VectorTeaching, fitted_weights, teacher_logits
from tests.toys import WORDS, make_toy_cross_encoder, make_toy_encoder, make_toy_sparse_encoder

PASSAGES = [PooledPassage(f"{WORDS[n]} {WORDS[n + 8]}", "", "toy") for n in range(6)]
CANDIDATES = CandidateSet(
    PASSAGES,
    [CandidateList(WORDS[n], "toy", n, [(n + 1) % 6], [(n + 2) % 6], [0.5, 0.2, 0.1], []) for n in range(6)],
)


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


@pytest.mark.parametrize("make", [make_toy_encoder, make_toy_cross_encoder, make_toy_sparse_encoder])
def test_every_passage_of_a_list_has_a_logit_and_the_answer_the_highest(make: object, tmp_path: Path) -> None:
    assert callable(make)
    logits = teacher_logits(candidates(), [make(tmp_path / "teacher")])
    for found, row in zip(candidates().lists, logits, strict=True):
        assert len(row) == len(found.rows)
        assert int(np.argmax(row)) == 0
        by_passage: dict[int, float] = {}
        for passage, logit in zip(found.rows[1:], row[1:], strict=True):
            assert by_passage.setdefault(passage, logit) == pytest.approx(logit)


def test_a_kind_has_one_vote_however_many_teach(tmp_path: Path) -> None:
    teachers = [make_toy_encoder(tmp_path / "encoder"), make_toy_sparse_encoder(tmp_path / "sparse")]
    encoder = Encoder.load(teachers[0])
    passages = encoder.encode([passage.text for passage in candidates().passages], "passage")
    lists = [
        msgspec.structs.replace(each, cosines=(passages[each.rows] @ encoder.encode([each.query])[0]).tolist())
        for each in candidates().lists
    ]
    taught = CandidateSet(candidates().passages, lists)
    once, twice = teacher_logits(taught, teachers), teacher_logits(taught, [*teachers, teachers[0]])
    assert [one == pytest.approx(two, abs=1e-3) for one, two in zip(once, twice, strict=True)] == [True, True]


def test_passages_alike_get_logits_alike(tmp_path: Path) -> None:
    """Two passages differ in the mined cosines alone, and the encoder takes them for the same."""
    passages = [PooledPassage(text, "", "toy") for text in ("wing flow", "heat cat", "heat cat dog", "bird fish")]
    found = CandidateList("wing", "toy", 0, [1, 2], [1, 3], [0.9, 0.5, -0.5, 0.5, 0.0], [])
    apart, alike = (
        teacher_logits(CandidateSet(passages, [found]), [make(tmp_path / make.__name__)])[0]
        for make in (make_toy_sparse_encoder, make_toy_encoder)
    )
    assert alike[1] - alike[2] < apart[1] - apart[2]


def test_of_a_list_its_own_passages_are_known() -> None:
    teaching = ListTeaching(CANDIDATES, [[3.0, 1.0, 0.5]] * 6)
    assert teaching.logits([0, 4], [0, 1, 5]).tolist() == [[3.0, 1.0, UNKNOWN], [0.5, UNKNOWN, 1.0]]


def test_encoders_know_every_passage_and_have_an_equal_say(tmp_path: Path) -> None:
    folder = make_toy_encoder(tmp_path / "teacher")
    encoder = Encoder.load(folder)

    def embed(texts: object) -> np.ndarray:
        return encoder.encode(list(texts), "passage")  # type: ignore[call-overload]

    alone = VectorTeaching.of(CANDIDATES, [], embed).logits(range(6), range(6))
    twice = VectorTeaching.of(CANDIDATES, [folder], embed).logits(range(6), range(6))
    assert alone.shape == (6, 6)
    assert np.isfinite(alone).all()
    cosines = embed([each.query for each in CANDIDATES.lists]) @ embed([each.text for each in PASSAGES]).T
    assert np.corrcoef(alone.ravel(), cosines.ravel())[0, 1] == pytest.approx(1.0, abs=1e-3)
    # Two teachers that think alike think as one of them.
    assert np.corrcoef(alone.ravel(), twice.ravel())[0, 1] == pytest.approx(1.0, abs=1e-3)


def test_vectors_survive_the_disk(tmp_path: Path) -> None:
    teaching = VectorTeaching(np.eye(3, 4, dtype=np.float16), np.ones((5, 4), dtype=np.float16))
    teaching.save(tmp_path / "teachers.npz")
    again = VectorTeaching.load(tmp_path / "teachers.npz")
    assert again.logits([1, 2], [0, 4]).tolist() == teaching.logits([1, 2], [0, 4]).tolist() == [[1.0, 1.0]] * 2
