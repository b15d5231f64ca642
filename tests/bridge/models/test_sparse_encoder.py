"""Texts to weighted terms."""

from pathlib import Path

import numpy as np
import pytest

from bridge.errors import ModelError
from bridge.models.artifact import IDF, ModelFolder, builtin_names, write_manifest
from bridge.models.sparse_encoder import MOST_TERMS, SparseEncoder, is_term
from tests.toys import WORDS, make_toy_encoder, make_toy_sparse_encoder


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> ModelFolder:
    return make_toy_sparse_encoder(tmp_path_factory.mktemp("toy"), idf={"cat": 2.0, "dog": 5.0, "[CLS]": 9.0})


@pytest.mark.parametrize(
    ("piece", "term"),
    [
        ("wing", True),
        ("##s", True),
        ("ψ", True),
        ("!", True),
        (".", False),
        ("##.5", False),
        ("[CLS]", False),
        ("[unused17]", False),
        ("<s>", False),
        ("", False),
        ("[", True),
        ("<", True),
    ],
)
def test_special_tokens_and_pieces_with_a_dot_are_no_terms(piece: str, term: bool) -> None:
    assert is_term(piece) is term


def test_terms_come_largest_first_for_each_text_in_input_order(toy: ModelFolder) -> None:
    terms = SparseEncoder.load(toy, threads=2).encode(["cat dog dog", "fish", "unknown", "bird bird bird cat cat dog"])
    assert [list(each.items()) for each in terms] == [
        [("dog", 2.0), ("cat", 1.0)],
        [("fish", 1.0)],
        [],
        [("bird", 3.0), ("cat", 2.0), ("dog", 1.0)],
    ]
    assert SparseEncoder.load(toy).encode([]) == []


def test_a_query_gets_the_weights_of_its_own_word_pieces(toy: ModelFolder) -> None:
    encoder = SparseEncoder.load(toy)
    assert list(encoder.query_terms("cat dog cat fish [CLS]").items()) == [("dog", 5.0), ("cat", 2.0)]
    assert encoder.query_terms("") == {}


def test_without_frequencies_all_words_of_a_query_weigh_the_same(tmp_path: Path) -> None:
    encoder = SparseEncoder.load(make_toy_sparse_encoder(tmp_path))
    assert encoder.query_terms("cat fish cat") == {"cat": 1.0, "fish": 1.0}


def test_terms_have_the_numbers_of_the_vocabulary(toy: ModelFolder) -> None:
    encoder = SparseEncoder.load(toy)
    assert [encoder.ids[word] for word in WORDS] == list(range(4, 4 + len(WORDS)))


@pytest.mark.parametrize("weights", [np.ones(3, dtype=np.float32), np.array([{}]), np.ones((2, 2))])
def test_weights_of_other_word_pieces_are_refused(tmp_path: Path, weights: np.ndarray) -> None:
    folder = make_toy_sparse_encoder(tmp_path, idf={"cat": 1.0})
    np.save(tmp_path / IDF, weights, allow_pickle=True)
    with pytest.raises(ModelError, match=f"{IDF} has no weight for each of {4 + len(WORDS)} word pieces"):
        SparseEncoder.load(write_manifest(tmp_path, folder.manifest))


def test_a_graph_without_the_largest_terms_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"gives \['logits', 'states'\], expected \['weights', 'ids'\]"):
        SparseEncoder.load(make_toy_sparse_encoder(tmp_path, outputs=("logits", "states")))


def test_another_kind_of_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="of kind encoder, a sparse_encoder is needed"):
        SparseEncoder.load(make_toy_encoder(tmp_path))


@pytest.mark.skipif("sparse-tiny" not in builtin_names(), reason="sparse-tiny's weights are not in this checkout")
def test_the_builtin_weighs_the_words_that_matter() -> None:
    encoder = SparseEncoder.load("sparse-tiny", threads=1)
    [terms] = encoder.encode(["An experimental study of a wing in a propeller slipstream"])
    assert {"wing", "experimental"} <= set(list(terms)[:5])
    assert len(terms) <= MOST_TERMS
    weights = encoder.query_terms("what is a propeller")
    assert next(iter(weights)) == "propeller"
    assert weights["propeller"] > 3 * weights["a"]
