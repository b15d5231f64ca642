"""What every engine of a query generator promises."""

import pytest

from bridge.models.artifact import ModelFolder
from bridge.models.generation import CTRANSLATE2_FILE, ONNX_FILES, Engine
from bridge.models.tokenization import load_tokenizer
from tests.toys import make_toy_query_generator


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> ModelFolder:
    pytest.importorskip("ctranslate2", reason="the extra ctranslate2 is not installed")
    return make_toy_query_generator(tmp_path_factory.mktemp("toy"))


def test_a_folder_tells_its_engine_by_its_files(toy: ModelFolder) -> None:
    assert CTRANSLATE2_FILE in toy.manifest.files
    assert not set(ONNX_FILES) & toy.manifest.files.keys()


def test_samples_have_no_special_tokens_and_a_mean_log_probability(toy: ModelFolder) -> None:
    from bridge.models.ctranslate2_engine import CTranslate2Engine

    engine: Engine = CTranslate2Engine(toy, threads=1)
    passages = [sequence["input_ids"][0].tolist() for sequence in load_tokenizer(toy).sequences(["red dress shoe"])]
    [samples] = engine.sample(passages, n_samples=5, max_new_tokens=3, seed=2)
    special = {toy.manifest.start_id, toy.manifest.end_id}
    assert len(samples) == 5
    for sample in samples:
        assert 0 < len(sample.ids) <= 3
        assert not special & set(sample.ids)
        assert sample.score <= 0
