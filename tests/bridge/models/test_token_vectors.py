"""Token ids to one embedding, by a table of vectors."""

from pathlib import Path

import numpy as np
import pytest

from bridge.errors import ModelError
from bridge.models.token_vectors import VECTORS_FILE, TokenVectors, save

VECTORS = np.array([[0, 0], [3, 0], [0, 4], [0.01, 0]], dtype=np.float32)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    save(VECTORS, tmp_path / VECTORS_FILE)
    return tmp_path / VECTORS_FILE


def test_an_embedding_is_the_sum_of_the_tokens_vectors_at_unit_length(file: Path) -> None:
    vectors = TokenVectors.load(file, n_ids=4, dimension=2)
    embeddings = vectors.embed([[1, 2], [2], [1, 1, 0, 2], [3]])
    assert embeddings.dtype == np.float32
    assert embeddings == pytest.approx(np.array([[0.6, 0.8], [0, 1], [6, 4] / np.sqrt(52), [1, 0]]))
    assert vectors.embed([]).shape == (0, 2)


def test_a_text_without_vectors_has_unit_length_too(file: Path) -> None:
    embeddings = TokenVectors.load(file, n_ids=4, dimension=2).embed([[0], []])
    assert embeddings == pytest.approx(np.full((2, 2), 0.5**0.5))


def test_each_vector_is_rounded_by_a_scale_of_its_own(tmp_path: Path) -> None:
    drawn = np.random.default_rng(1).normal(size=(50, 64)).astype(np.float32) * np.logspace(-4, 2, 50)[:, None]
    save(drawn.astype(np.float32), tmp_path / VECTORS_FILE)
    embeddings = TokenVectors.load(tmp_path / VECTORS_FILE, n_ids=50, dimension=64).embed([[row] for row in range(50)])
    assert (embeddings * drawn).sum(axis=1) / np.linalg.norm(drawn, axis=1) == pytest.approx(1, abs=1e-3)


@pytest.mark.case("R17")
def test_a_tokenizer_with_more_ids_than_there_are_vectors_is_refused(file: Path) -> None:
    with pytest.raises(ModelError, match="has 4 vectors, its tokenizer has 5 ids"):
        TokenVectors.load(file, n_ids=5, dimension=2)


def test_another_dimension_than_the_manifests_is_refused(file: Path) -> None:
    with pytest.raises(ModelError, match="expected 3 int8 numbers"):
        TokenVectors.load(file, n_ids=4, dimension=3)


def test_a_scale_that_is_not_finite_is_refused(file: Path) -> None:
    table = np.load(file)
    table["scale"][2] = np.nan
    np.save(file, table)
    with pytest.raises(ModelError, match="a scale that is not finite"):
        TokenVectors.load(file, n_ids=4, dimension=2)


@pytest.mark.parametrize("cut", [0, 5, 60, 140])
def test_a_file_that_breaks_off_is_refused(file: Path, cut: int) -> None:
    file.write_bytes(file.read_bytes()[:cut])
    with pytest.raises(ModelError, match="is no table of vectors"):
        TokenVectors.load(file, n_ids=4, dimension=2)


def test_pickled_objects_stay_unread(file: Path) -> None:
    np.save(file, np.array([{"not": "a table"}]), allow_pickle=True)
    with pytest.raises(ModelError, match="is no table of vectors"):
        TokenVectors.load(file, n_ids=1, dimension=2)
