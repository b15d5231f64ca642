"""Sampling queries with CTranslate2."""

import pytest

from bridge.errors import ModelError
from bridge.models.artifact import ModelFolder, resolve, write_manifest
from bridge.models.query_generator import QueryGenerator
from bridge.models.tokenization import load_tokenizer
from tests.toys import make_toy_query_generator

pytest.importorskip("ctranslate2", reason="the extra ctranslate2 is not installed")

from bridge.models.ctranslate2_engine import FREQUENT_PIECES, CTranslate2Engine


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> ModelFolder:
    return make_toy_query_generator(tmp_path_factory.mktemp("toy"))


def test_samples_stand_at_the_place_of_their_passage_for_any_number_of_threads(toy: ModelFolder) -> None:
    tokenizer = load_tokenizer(toy)
    texts = ["cat", "red dress shoe the cat and the dog", "dog", "write a file"]
    passages = [sequence["input_ids"][0].tolist() for sequence in tokenizer.sequences(texts)]
    for threads in (1, 3):
        engine = CTranslate2Engine(toy, threads=threads)
        samples = engine.sample(passages, n_samples=3, max_new_tokens=4, seed=1)
        assert [len(of_passage) for of_passage in samples] == [3] * 4
        for text, of_passage in zip(texts, samples, strict=True):
            assert all(set(tokenizer.decode(sample.ids).split()) <= set(text.split()) for sample in of_passage)


def test_queries_have_frequent_pieces_and_those_of_their_passages() -> None:
    folder = resolve("doc2query-small")
    engine = CTranslate2Engine(folder, threads=1)
    [sequence] = load_tokenizer(folder).sequences(
        ["Myocardial infarction is diagnosed by troponin and an electrocardiogram."]
    )
    passage = sequence["input_ids"][0].tolist()
    rare = {number for number in passage if number >= FREQUENT_PIECES}
    assert len(rare) > 5
    [samples] = engine.sample([passage], n_samples=50, max_new_tokens=16, seed=1)
    asked = {number for sample in samples for number in sample.ids}
    assert {number for number in asked if number >= FREQUENT_PIECES} <= rare
    assert len(asked & rare) > 2
    assert len(asked) > 50


@pytest.mark.case("R13")
def test_damaged_weights_are_refused_although_their_digest_fits(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = make_toy_query_generator(tmp_path_factory.mktemp("damaged"))
    folder.model_file.write_bytes(b"\x80\x04" + folder.model_file.read_bytes()[2:])
    with pytest.raises(ModelError, match="CTranslate2 cannot load it"):
        QueryGenerator.load(write_manifest(folder.path, folder.manifest))
