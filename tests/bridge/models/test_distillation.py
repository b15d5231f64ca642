"""A static encoder made of another encoder: the toy one, whose embeddings of two words share nothing."""

from pathlib import Path

import msgspec
import numpy as np
import pytest

from bridge.errors import ModelError
from bridge.models.artifact import ModelFolder, write_manifest
from bridge.models.distillation import inverse_frequency, make_static_encoder
from bridge.models.encoder import Encoder
from tests.toys import WORDS, make_toy_encoder, make_toy_static_encoder

TEXTS = [" ".join(WORDS), *["cat dog"] * 200]
DIMENSION = len(WORDS) - 1
"""As many components as the words' embeddings have about their mean."""


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> ModelFolder:
    return make_toy_encoder(tmp_path_factory.mktemp("toy"))


@pytest.fixture(scope="module")
def made(toy: ModelFolder, tmp_path_factory: pytest.TempPathFactory) -> ModelFolder:
    out = tmp_path_factory.mktemp("static")
    return make_static_encoder(toy, out, name="small", dimension=DIMENSION, texts=TEXTS, sources=["by hand"])


def test_the_manifest_says_what_it_was_made_of(toy: ModelFolder, made: ModelFolder) -> None:
    manifest = made.manifest
    assert (manifest.kind, manifest.name, manifest.dimension) == ("static_encoder", "small", DIMENSION)
    assert manifest.licence == toy.manifest.licence
    assert manifest.sources == [f"every piece of the vocabulary, embedded by {toy.identity}", "by hand"]
    assert manifest.figures["variance_kept"] == pytest.approx(1)


def test_texts_that_share_rare_words_are_nearer_than_those_that_share_frequent_ones(made: ModelFolder) -> None:
    encoder = Encoder.load(made)
    [frequent, rare, unlike] = encoder.encode(["cat wing", "bird flow", "fish"])
    shares = encoder.encode(["cat pressure", "bird pressure"])
    assert rare @ shares[1] > frequent @ shares[0] + 0.2
    assert abs(rare @ unlike) < 0.1


def test_the_same_model_and_texts_make_the_same_vectors(toy: ModelFolder, made: ModelFolder, tmp_path: Path) -> None:
    again = make_static_encoder(toy, tmp_path, name="small", dimension=DIMENSION, texts=TEXTS, sources=["by hand"])
    assert again.identity == made.identity


def test_fewer_dimensions_keep_less_of_the_variance(toy: ModelFolder, tmp_path: Path) -> None:
    small = make_static_encoder(toy, tmp_path, name="small", dimension=8, texts=TEXTS)
    assert small.manifest.figures["variance_kept"] == pytest.approx(8 / DIMENSION)
    assert Encoder.load(small).encode(["cat dog"]).shape == (1, 8)


def test_a_prefix_of_the_encoder_stands_before_each_piece(toy: ModelFolder, tmp_path: Path) -> None:
    def variance_kept(model: ModelFolder) -> float:
        made = make_static_encoder(model, tmp_path, name="x", dimension=DIMENSION - 1, texts=TEXTS)
        return made.manifest.figures["variance_kept"]

    prefixed = ModelFolder(toy.path, msgspec.structs.replace(toy.manifest, passage_prefix="fish "))
    # One direction is as good as another, but that of a word which all have in common tells nothing.
    assert variance_kept(toy) == pytest.approx(1 - 1 / DIMENSION)
    assert variance_kept(prefixed) > 0.99


def test_a_weight_is_halved_at_the_smoothing_frequency() -> None:
    counts = np.array([0, 998, 2_000_000 - 1_002 + 1])
    weights = inverse_frequency(counts)
    assert weights == pytest.approx([1, 0.667, 0.001], abs=1e-3)
    assert weights.dtype == np.float32


def test_more_dimensions_than_the_encoder_has_are_refused(toy: ModelFolder, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=f"ask for at most {len(WORDS)}"):
        make_static_encoder(toy, tmp_path, name="x", dimension=len(WORDS) + 1, texts=TEXTS)


def test_texts_with_too_few_pieces_are_refused(toy: ModelFolder, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="the texts have 2 different pieces of words, 3 are needed"):
        make_static_encoder(toy, tmp_path, name="x", dimension=3, texts=["cat dog"])


def test_a_static_encoder_is_made_of_no_static_encoder(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="of kind static_encoder, a encoder is needed"):
        make_static_encoder(make_toy_static_encoder(tmp_path / "a"), tmp_path / "b", name="x", dimension=3, texts=TEXTS)


def test_special_tokens_get_no_vector(toy: ModelFolder, tmp_path: Path) -> None:
    tokenizer = Encoder.load(toy).tokenizer
    assert tokenizer.special_ids == []  # the toy's are ordinary entries of its vocabulary
    folder = make_toy_encoder(tmp_path / "toy")
    definition = msgspec.json.decode(folder.tokenizer_file.read_bytes())
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    definition["added_tokens"] = [{"id": 0, "content": "[PAD]", "special": True, **flags}]
    folder.tokenizer_file.write_bytes(msgspec.json.encode(definition))
    special = write_manifest(folder.path, folder.manifest)
    assert Encoder.load(special).tokenizer.special_ids == [0]
    made = make_static_encoder(special, tmp_path / "static", name="x", dimension=8, texts=TEXTS)
    encoder = Encoder.load(made)
    assert encoder.encode(["[PAD] cat"]) == pytest.approx(encoder.encode(["cat"]))
