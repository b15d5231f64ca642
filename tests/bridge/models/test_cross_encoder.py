"""Query and passages to scores."""

import numpy as np
import pytest

from bridge.errors import ModelError
from bridge.models.artifact import ModelFolder, builtin_names, resolve
from bridge.models.cross_encoder import CrossEncoder
from bridge.models.session import CPU
from tests.bridge.models.batching_provider import IN_BATCHES
from tests.toys import make_faulty_cross_encoder, make_toy_cross_encoder, make_toy_encoder

QUERY = "how do I sort a list by several keys"
PASSAGES = [
    "sorted(iterable, key=None, reverse=False): return a new sorted list from the items in iterable.",
    "An experimental study of a wing in a propeller slipstream was made.",
    "Send a signal to the process.",
    "",
    "list.sort: sort the list in place. " * 40,
]


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> ModelFolder:
    return make_toy_cross_encoder(tmp_path_factory.mktemp("toy"))


def test_scores_come_in_input_order(toy: ModelFolder) -> None:
    passages = ["a bird", "dog and cat", "cat", "", "the cat, the dog, the fish"]
    scores = CrossEncoder.load(toy, threads=3).score("cat dog fish", passages)
    assert scores.dtype == np.float32
    assert scores.tolist() == [0, 2, 1, 0, 3]


def test_no_passages_give_no_scores(toy: ModelFolder) -> None:
    assert CrossEncoder.load(toy).score("cat", []).shape == (0,)


@pytest.mark.parametrize("providers", [[CPU], IN_BATCHES])
def test_each_pair_scores_as_it_does_alone_whichever_provider_computes(toy: ModelFolder, providers: list[str]) -> None:
    cross_encoder = CrossEncoder.load(toy, providers=providers)
    pairs = cross_encoder.pairs("cat dog fish", ["a bird in the house", "dog and cat", "cat"])
    assert cross_encoder.score_pairs(pairs) == [cross_encoder.score_pair(pair) for pair in pairs] == [0, 2, 1]


@pytest.mark.case("R5")
@pytest.mark.parametrize("text", ["", " ", "🙂", "\ud800", "\x00", "مرحبا"])
def test_any_text_gets_a_finite_score(toy: ModelFolder, text: str) -> None:
    cross_encoder = CrossEncoder.load(toy)
    assert np.isfinite(cross_encoder.score("cat", [text, "cat"])).all()
    assert np.isfinite(cross_encoder.score(text, ["cat"])).all()


@pytest.mark.case("R8")
def test_a_score_that_is_no_number_is_an_error(tmp_path_factory: pytest.TempPathFactory) -> None:
    faulty = CrossEncoder.load(make_faulty_cross_encoder(tmp_path_factory.mktemp("faulty")))
    with pytest.raises(ModelError, match="not finite"):
        faulty.score("cat dog", ["bird", "cat"])


@pytest.mark.case("R13")
def test_a_model_with_several_outputs_per_pair_is_refused(tmp_path_factory: pytest.TempPathFactory) -> None:
    encoder = make_toy_encoder(tmp_path_factory.mktemp("encoder"))
    manifest = encoder.path / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"encoder"', '"cross_encoder"'))
    with pytest.raises(ModelError, match="expected one logit per pair"):
        CrossEncoder.load(resolve(str(encoder.path)))


@pytest.fixture(scope="module")
def cross_encoder() -> CrossEncoder:
    return CrossEncoder.load(resolve("rerank-base"), threads=2)


@pytest.mark.skipif("rerank-base" not in builtin_names(), reason="rerank-base's weights are not in this checkout")
class TestRerankBase:
    """The cross-encoder that comes with the program."""

    def test_it_ranks_the_answer_first(self, cross_encoder: CrossEncoder) -> None:
        scores = cross_encoder.score(QUERY, PASSAGES[:3])
        assert scores.argmax() == 0

    @pytest.mark.case("R22")
    def test_a_score_does_not_depend_on_company_order_or_threads(self, cross_encoder: CrossEncoder) -> None:
        together = cross_encoder.score(QUERY, PASSAGES * 13)[:5]
        alone = np.concatenate([cross_encoder.score(QUERY, [passage]) for passage in PASSAGES])
        backwards = CrossEncoder.load(resolve("rerank-base"), threads=1).score(QUERY, PASSAGES[::-1])[::-1]
        assert np.array_equal(together, alone)
        assert np.array_equal(together, backwards)
