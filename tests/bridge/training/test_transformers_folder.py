"""A transformers folder, read safely."""

import json
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="training needs the train extra")

from bridge.errors import ModelError
from bridge.models.artifact import verify
from bridge.training.transformers_folder import FORBIDDEN_KEYS, Card, checked_configuration, write_model
from tests.toys import make_toy_encoder


def _source(folder: Path, **configuration: object) -> Path:
    (folder / "config.json").write_text(json.dumps(configuration))
    (folder / "model.safetensors").touch()
    (folder / "tokenizer.json").write_text("{}")
    return folder


@pytest.mark.parametrize("key", FORBIDDEN_KEYS)
def test_a_configuration_that_names_code_is_refused(key: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=key):
        checked_configuration(_source(tmp_path, hidden_size=4, **{key: "x"}))


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_folder_without_a_needed_file_is_refused(missing: str, tmp_path: Path) -> None:
    source = _source(tmp_path, hidden_size=4)
    (source / missing).unlink()
    with pytest.raises(ModelError, match=missing):
        checked_configuration(source)


def test_a_written_model_says_what_its_card_says_and_passes_its_own_check(tmp_path: Path) -> None:
    source = make_toy_encoder(tmp_path / "source")
    out = tmp_path / "out"
    out.mkdir()
    (out / "model.onnx").write_bytes(source.model_file.read_bytes())
    card = Card("mine", "MIT", sources=["somewhere"], max_tokens=64)
    written = write_model(source.path, out, card, "encoder", ["model.onnx"], max_tokens=32, dimension=4)
    verify(written, kind="encoder")
    assert (written.manifest.name, written.manifest.licence, written.manifest.max_tokens) == ("mine", "MIT", 32)
    assert set(written.manifest.files) == {"model.onnx", "tokenizer.json"}
