"""Models of a hub that come without an ONNX graph: fetched from a mirror, exported, run."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

pytest.importorskip("torch", reason="training needs the train extra")
transformers = pytest.importorskip("transformers", reason="training needs the train extra")

from bridge.commands.models import command
from bridge.models.artifact import read_folder
from bridge.models.encoder import Encoder
from bridge.models.query_generator import QueryGenerator
from tests.hub_mirror import mirror_model
from tests.toys import SPECIAL_TOKENS, toy_tokenizer


def repository(folder: Path, model: Any) -> dict[str, bytes]:
    model.save_pretrained(folder)
    toy_tokenizer().save(str(folder / "tokenizer.json"))
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def fetch(name: str, tmp_path: Path, files: dict[str, bytes]) -> Path:
    mirror_model(tmp_path / "mirror", name, files)
    out = tmp_path / "out"
    arguments = ["fetch", name, "--mirror", str(tmp_path / "mirror"), "--out", str(out)]
    result = CliRunner().invoke(command, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return out


def t5() -> Any:
    configuration = transformers.T5Config(
        vocab_size=toy_tokenizer().get_vocab_size(),
        d_model=32,
        d_kv=8,
        d_ff=64,
        num_layers=2,
        num_heads=4,
        decoder_start_token_id=SPECIAL_TOKENS.index("[PAD]"),
        pad_token_id=SPECIAL_TOKENS.index("[PAD]"),
        eos_token_id=SPECIAL_TOKENS.index("[SEP]"),
    )
    return transformers.T5ForConditionalGeneration(configuration)


def bart() -> Any:
    configuration = transformers.BartConfig(
        vocab_size=toy_tokenizer().get_vocab_size(),
        d_model=32,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=64,
        decoder_ffn_dim=64,
        max_position_embeddings=64,
        decoder_start_token_id=SPECIAL_TOKENS.index("[CLS]"),
        bos_token_id=SPECIAL_TOKENS.index("[CLS]"),
        pad_token_id=SPECIAL_TOKENS.index("[PAD]"),
        eos_token_id=SPECIAL_TOKENS.index("[SEP]"),
        forced_eos_token_id=None,
    )
    return transformers.BartForConditionalGeneration(configuration)


@pytest.mark.parametrize("make", [t5, bart], ids=["T5", "BART"])
def test_a_query_generator_is_exported_with_its_cache_and_writes(make: Any, tmp_path: Path) -> None:
    out = fetch("acme/doc2query", tmp_path, repository(tmp_path / "source", make()))
    folder = read_folder(out)
    assert folder.manifest.kind == "query_generator"
    generator = QueryGenerator.load(folder, threads=1)
    queries = generator.generate(["wing pressure flow", ""], n_queries=4, max_new_tokens=6, seed=1)
    assert queries[0]
    assert queries[1] == []
    assert all(len(query.split()) <= 6 for query in queries[0])
    assert generator.generate(["wing pressure flow"], n_queries=4, max_new_tokens=6, seed=1)[0] == queries[0]


def test_an_encoder_is_exported_with_the_pooling_of_its_files(toy_base: Path, tmp_path: Path) -> None:
    files = {path.name: path.read_bytes() for path in toy_base.iterdir()}
    files["1_Pooling/config.json"] = b'{"pooling_mode_cls_token": true}'
    folder = read_folder(fetch("acme/embedder", tmp_path, files))
    assert folder.manifest.pooling == "cls"
    assert Encoder.load(folder, threads=1).encode(["wing flow"]).shape == (1, 48)


def test_a_configuration_that_names_code_is_refused(toy_base: Path, tmp_path: Path) -> None:
    files = {path.name: path.read_bytes() for path in toy_base.iterdir()}
    files["config.json"] = files["config.json"].replace(b"{", b'{"auto_map": {"AutoModel": "evil.Model"},', 1)
    mirror_model(tmp_path / "mirror", "acme/embedder", files)
    arguments = ["fetch", "acme/embedder", "--mirror", str(tmp_path / "mirror"), "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(command, arguments)
    assert "names code to load (auto_map)" in str(result.exception)


def test_an_encoder_without_a_normalising_module_keeps_its_lengths(tmp_path: Path) -> None:
    configuration = transformers.BertConfig(
        vocab_size=toy_tokenizer().get_vocab_size(),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    files = repository(tmp_path / "source", transformers.BertModel(configuration, add_pooling_layer=False))
    files["modules.json"] = b'[{"type": "sentence_transformers.models.Transformer"}]'
    folder = read_folder(fetch("acme/encoder", tmp_path, files))
    assert folder.manifest.normalise is False
    encoder = Encoder.load(folder)
    length = float(np.linalg.norm(encoder.encode(["wing pressure flow"], "query")[0]))
    encoder.close()
    assert abs(length - 1.0) > 0.01
