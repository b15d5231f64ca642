"""What a run makes once."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs the train extra")
pytest.importorskip("bm25s", reason="training needs the train extra")

from bridge.errors import UsageError
from bridge.training.mining import CandidateList, CandidateSet, PooledPassage
from bridge.training.run_folder import RunFolder
from bridge.training.teachers import ListTeaching, VectorTeaching
from tests.toys import make_toy_cross_encoder

CANDIDATES = CandidateSet(
    [PooledPassage(text, "", "toy") for text in ("cat", "dog")],
    [CandidateList("cat", "toy", 0, [1], [], [0.9, 0.1], []), CandidateList("dog", "toy", 1, [0], [], [0.9, 0.1], [])],
)


def test_candidates_are_mined_once(tmp_path: Path) -> None:
    run = RunFolder.claimed(tmp_path / "run", resume=False)
    assert run.candidates(lambda: CANDIDATES, at_least=2) == CANDIDATES

    def mine_again() -> CandidateSet:
        raise AssertionError("the folder holds candidates")

    again = RunFolder.claimed(tmp_path / "run", resume=True)
    assert again.candidates(mine_again, at_least=2) == CANDIDATES
    with pytest.raises(UsageError, match="at least 3 are needed"):
        again.candidates(mine_again, at_least=3)


def test_a_folder_with_a_run_needs_resume(tmp_path: Path) -> None:
    (tmp_path / "log.csv").touch()
    with pytest.raises(UsageError, match="add --resume"):
        RunFolder.claimed(tmp_path, resume=False)


def test_encoders_teach_by_vectors_and_a_cross_encoder_by_lists(tmp_path: Path) -> None:
    def opened() -> object:
        return lambda texts: np.eye(2, dtype=np.float32)[[0 if text == "cat" else 1 for text in texts]]

    by_vectors = RunFolder.claimed(tmp_path / "a", resume=False).teaching(CANDIDATES, [], opened)  # type: ignore[arg-type]
    assert isinstance(by_vectors, VectorTeaching)
    assert by_vectors.logits([0, 1], [0, 1]).argmax(axis=1).tolist() == [0, 1]
    teacher = make_toy_cross_encoder(tmp_path / "teacher")
    by_lists = RunFolder.claimed(tmp_path / "b", resume=False).teaching(CANDIDATES, [teacher], opened)  # type: ignore[arg-type]
    assert isinstance(by_lists, ListTeaching)
