"""Texts to embeddings."""

from pathlib import Path

import msgspec
import numpy as np
import pytest

from bridge.errors import ModelError
from bridge.models.artifact import ModelFolder, Role, builtin_names, resolve, write_manifest
from bridge.models.encoder import Encoder
from bridge.models.session import CPU
from tests.bridge.models.batching_provider import IN_BATCHES
from tests.toys import WORDS, make_toy_encoder, make_toy_static_encoder, toy_tokenizer

TEXTS = [
    "sorted(iterable): return a new sorted list from the items in iterable",
    "how to sort a list",
    "An experimental study of a wing in a propeller slipstream",
    "",
]


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> ModelFolder:
    return make_toy_encoder(tmp_path_factory.mktemp("toy"))


def test_embeddings_have_unit_length_and_input_order(toy: ModelFolder) -> None:
    texts = ["cat", "cat dog bird", "dog cat", "fish"]
    embeddings = Encoder.load(toy, threads=2).encode(texts)
    assert embeddings.dtype == np.float32
    assert embeddings.shape == (4, len(WORDS))
    assert np.linalg.norm(embeddings, axis=1) == pytest.approx(1.0)
    assert embeddings @ embeddings[0] == pytest.approx([1, 3**-0.5, 2**-0.5, 0])


def test_no_texts_give_no_rows(toy: ModelFolder) -> None:
    assert Encoder.load(toy).encode([]).shape == (0, len(WORDS))


@pytest.mark.parametrize("providers", [[CPU], IN_BATCHES])
@pytest.mark.parametrize("pooling", ["mean", "max", "cls"])
def test_each_text_is_embedded_as_it_is_alone_whichever_provider_computes(
    toy: ModelFolder, pooling: str, providers: list[str]
) -> None:
    manifest = msgspec.convert(msgspec.to_builtins(toy.manifest) | {"pooling": pooling}, type(toy.manifest))
    encoder = Encoder.load(ModelFolder(toy.path, manifest), providers=providers)
    sequences = encoder.sequences(["cat dog bird fish", "cat", "red dress"])
    embeddings = encoder.embed_sequences(sequences)
    assert np.stack(embeddings) == pytest.approx(np.stack([encoder.embed_sequence(each) for each in sequences]))


@pytest.mark.parametrize(
    ("pooling", "expected"), [("mean", [2**-0.5, 2**-0.5]), ("max", [2**-0.5, 2**-0.5]), ("cls", [0.0, 0.0])]
)
def test_pooling_follows_the_manifest(toy: ModelFolder, pooling: str, expected: list[float]) -> None:
    # [CLS] has a row of zeros in the toy's table.
    manifest = msgspec.convert(msgspec.to_builtins(toy.manifest) | {"pooling": pooling}, type(toy.manifest))
    embedding = Encoder.load(ModelFolder(toy.path, manifest)).encode(["cat dog"])[0]
    assert embedding[[WORDS.index("cat"), WORDS.index("dog")]] == pytest.approx(expected)


def test_prefixes_go_before_texts_by_role(toy: ModelFolder) -> None:
    manifest = msgspec.structs.replace(toy.manifest, query_prefix="bird ", passage_prefix="fish ")
    encoder = Encoder.load(ModelFolder(toy.path, manifest))
    plain = Encoder.load(toy)
    assert encoder.encode(["cat"], "query") == pytest.approx(plain.encode(["bird cat"]))
    assert encoder.encode(["cat"], "passage") == pytest.approx(plain.encode(["fish cat"]))


@pytest.mark.case("R17")
def test_a_tokenizer_with_more_words_than_the_model_is_refused(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = make_toy_encoder(tmp_path_factory.mktemp("toy"))
    toy_tokenizer([*WORDS, "one-too-many"]).save(str(folder.tokenizer_file))
    changed = write_manifest(folder.path, folder.manifest)
    with pytest.raises(ModelError, match=f"its tokenizer has {len(WORDS) + 5} ids, perhaps more than the model"):
        Encoder.load(changed)


def test_a_wrong_dimension_is_refused(toy: ModelFolder) -> None:
    manifest = msgspec.structs.replace(toy.manifest, dimension=384)
    with pytest.raises(ModelError, match="expected \\(1, n_tokens, 384\\)"):
        Encoder.load(ModelFolder(toy.path, manifest))


class TestStatic:
    """An encoder without a neural network does what the toy encoder, which has one, does with the same vectors."""

    @pytest.fixture
    def folder(self, tmp_path: Path) -> ModelFolder:
        return make_toy_static_encoder(tmp_path, max_tokens=6)

    def test_it_embeds_as_the_model_with_the_same_vectors(self, folder: ModelFolder, toy: ModelFolder) -> None:
        texts = ["cat", "cat dog bird", "dog, dog. unheard-of", "CAT"]
        assert Encoder.load(folder, threads=2).encode(texts) == pytest.approx(Encoder.load(toy).encode(texts))

    def test_a_servers_halves_give_the_same_as_the_whole(self, folder: ModelFolder) -> None:
        encoder = Encoder.load(ModelFolder(folder.path, msgspec.structs.replace(folder.manifest, query_prefix="fish ")))
        texts = ["cat dog", "", "cat dog bird horse cow", "\ud800 bee"]
        roles: tuple[Role, ...] = ("query", "passage")
        for role in roles:
            rows = encoder.embed_sequences(encoder.sequences(texts, role))
            assert np.stack(rows) == pytest.approx(encoder.encode(texts, role), abs=1e-6)

    def test_words_beyond_the_limit_count_for_nothing(self, folder: ModelFolder) -> None:
        encoder = Encoder.load(folder)
        assert encoder.encode(["cat dog bird fish"]) == pytest.approx(encoder.encode(["cat dog bird fish horse"]))
        assert encoder.encode([]).shape == (0, len(WORDS))

    @pytest.mark.case("R17")
    def test_a_tokenizer_with_more_words_than_the_model_is_refused(self, folder: ModelFolder) -> None:
        toy_tokenizer([*WORDS, "one-too-many"]).save(str(folder.tokenizer_file))
        changed = write_manifest(folder.path, folder.manifest)
        with pytest.raises(ModelError, match=f"its tokenizer has {len(WORDS) + 5} ids: make the model anew"):
            Encoder.load(changed)

    def test_a_changed_file_is_refused(self, folder: ModelFolder) -> None:
        folder.model_file.write_bytes(folder.model_file.read_bytes() + b" ")
        with pytest.raises(ModelError, match="has SHA-256"):
            Encoder.load(folder)


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder.load(resolve("embed-base"), threads=2)


@pytest.mark.skipif("embed-base" not in builtin_names(), reason="embed-base's weights are not in this checkout")
class TestEmbedBase:
    """The encoder that comes with the program."""

    def test_it_knows_what_belongs_together(self, encoder: Encoder) -> None:
        embeddings = encoder.encode(TEXTS)
        similarities = embeddings @ embeddings.T
        assert similarities[0, 1] > 0.6
        assert similarities[0, 2] < 0.2

    def test_an_embedding_does_not_depend_on_company_order_or_threads(self, encoder: Encoder) -> None:
        together = encoder.encode(TEXTS)
        alone = np.concatenate([encoder.encode([text]) for text in TEXTS])
        backwards = Encoder.load(resolve("embed-base"), threads=1).encode(TEXTS[::-1])[::-1]
        assert np.array_equal(together, alone)
        assert np.array_equal(together, backwards)

    def test_golden_values(self, encoder: Encoder) -> None:
        """Cosines of float32 weights in torch; int8 may differ by what the manifest's figures tell."""
        embeddings = encoder.encode(TEXTS[:3])
        assert embeddings @ embeddings[0] == pytest.approx([1.0, 0.7007, 0.0241], abs=0.03)


@pytest.mark.skipif("embed-static" not in builtin_names(), reason="embed-static's weights are not in this checkout")
def test_the_builtin_static_encoder_knows_what_belongs_together() -> None:
    encoder = Encoder.load("embed-static")
    embeddings = encoder.encode(TEXTS)
    assert encoder.dimension == 256
    assert np.linalg.norm(embeddings, axis=1) == pytest.approx(1)
    similarities = embeddings @ embeddings.T
    assert similarities[0, 1] > similarities[0, 2] + 0.3
