"""Models of a hub, from a mirror folder: what is taken, what the manifest says, what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, processors

from bridge.commands.models import command
from bridge.errors import ModelError
from bridge.models.artifact import resolve
from bridge.models.cross_encoder import CrossEncoder
from bridge.models.encoder import Encoder
from bridge.models.hub import copy_ready_graph, download
from bridge.models.tokenization import load_tokenizer
from bridge.text import scripts_of_words
from tests.hub_mirror import COMMIT, mirror_model
from tests.toys import WORDS, make_toy_cross_encoder, make_toy_encoder

ENCODER = "acme/toy-embedder"
CARD = b"---\nlicense: apache-2.0\ntags: [toy]\n---\n# A model\n"


def _files(folder: Path, *, graph: str = "onnx/model.onnx", architecture: str = "BertModel") -> dict[str, bytes]:
    configuration = {"architectures": [architecture], "hidden_size": len(WORDS), "max_position_embeddings": 64}
    return {
        "config.json": json.dumps(configuration).encode(),
        "tokenizer.json": (folder / "tokenizer.json").read_bytes(),
        "README.md": CARD,
        graph: (folder / "model.onnx").read_bytes(),
    }


@pytest.fixture
def encoder_files(tmp_path: Path) -> dict[str, bytes]:
    return {
        **_files(make_toy_encoder(tmp_path / "toy").path),
        "1_Pooling/config.json": b'{"pooling_mode_cls_token": true, "pooling_mode_mean_tokens": false}',
        "modules.json": b'[{"type": "sentence_transformers.models.Transformer"}, {"type": "x.Normalize"}]',
        "sentence_bert_config.json": b'{"max_seq_length": 32}',
        "config_sentence_transformers.json": b'{"prompts": {"query": "find: ", "document": "read: "}}',
    }


def test_an_encoder_with_a_ready_graph_is_taken_with_all_that_its_files_say(
    tmp_path: Path, encoder_files: dict[str, bytes]
) -> None:
    mirror_model(tmp_path / "mirror", ENCODER, encoder_files)
    folder = copy_ready_graph(download(ENCODER, mirror=tmp_path / "mirror"), tmp_path / "out", name=ENCODER)
    manifest = folder.manifest
    assert (manifest.kind, manifest.pooling, manifest.max_tokens) == ("encoder", "cls", 32)
    assert (manifest.query_prefix, manifest.passage_prefix, manifest.normalise) == ("find: ", "read: ", True)
    assert (manifest.licence, manifest.dimension) == ("apache-2.0", len(WORDS))
    assert manifest.sources == [f"hub: {ENCODER} at {COMMIT}"]
    assert Encoder.load(folder, threads=1).encode(["wing"]).shape == (1, len(WORDS))


def test_a_fetched_model_is_found_by_its_name(
    tmp_path: Path, encoder_files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    mirror_model(tmp_path / "mirror", ENCODER, encoder_files)
    with pytest.raises(ModelError, match=f"neural-bridge models fetch {ENCODER}"):
        resolve(ENCODER)
    ran = CliRunner().invoke(
        command,
        ["fetch", ENCODER, "--mirror", str(tmp_path / "mirror"), "--query-prefix", "q: "],
        catch_exceptions=False,
    )
    assert ran.exit_code == 0
    assert f"{ENCODER}@" in ran.stdout
    assert resolve(ENCODER).manifest.query_prefix == "q: "


E5 = "intfloat/multilingual-e5-small"
E5_CARD = b"---\nlanguage:\n- multilingual\n- de\n- zh\nlicense: mit\n---\n"
PIECES = ["▁der", "▁flügel", "▁hebt", "▁красный", "▁会飞", "▁", "e", "n"]


def _multilingual_files(folder: Path) -> dict[str, bytes]:
    """As the repository has them: BERT with XLM-R's pieces, whose special tokens come first, and no prompts."""
    pieces = [(piece, -1.0) for piece in ("<s>", "<pad>", "</s>", "<unk>", *PIECES)]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=3))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in ("<s>", "<pad>", "</s>", "<unk>")])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    toy = make_toy_encoder(folder, PIECES)
    return {
        **_files(toy.path),
        "config.json": b'{"architectures": ["BertModel"], "hidden_size": 8, "max_position_embeddings": 512}',
        "tokenizer.json": tokenizer.to_str().encode(),
        "README.md": E5_CARD,
        "1_Pooling/config.json": b'{"pooling_mode_mean_tokens": true}',
        "modules.json": b'[{"type": "sentence_transformers.models.Transformer"}, {"type": "x.Normalize"}]',
        "sentence_bert_config.json": b'{"max_seq_length": 512}',
    }


def test_a_multilingual_encoder_is_fetched_as_the_hub_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    mirror_model(tmp_path / "mirror", E5, _multilingual_files(tmp_path / "toy"))
    prefixes = ["--query-prefix", "query: ", "--passage-prefix", "passage: "]

    ran = CliRunner().invoke(command, ["fetch", E5, "--mirror", str(tmp_path / "mirror"), *prefixes])

    assert ran.exit_code == 0, ran.output
    folder = resolve(E5)
    manifest = folder.manifest
    assert (manifest.languages, manifest.licence, manifest.max_tokens) == (["multilingual", "de", "zh"], "mit", 512)
    assert (manifest.prefix("query"), manifest.prefix("passage")) == ("query: ", "passage: ")
    encoder = Encoder.load(folder, threads=1)
    german, russian, chinese = encoder.encode(["Der Flügel hebt", "красный", "会飞"])
    assert german @ encoder.encode(["der Flügel"])[0] > max(german @ russian, german @ chinese)
    assert scripts_of_words(load_tokenizer(folder).words) == ["cjk", "cyrillic", "latin"]


def test_a_cross_encoder_is_told_by_its_architecture(tmp_path: Path) -> None:
    toy = make_toy_cross_encoder(tmp_path / "toy").path
    files = _files(toy, graph="model.onnx", architecture="BertForSequenceClassification")
    mirror_model(tmp_path / "mirror", "acme/reranker", files)
    folder = copy_ready_graph(download("acme/reranker", mirror=tmp_path / "mirror"), tmp_path / "out", name="reranker")
    scores = CrossEncoder.load(folder, threads=1).score("wing flow", ["wing flow", "cat"])
    assert np.argmax(scores) == 0


def test_a_sparse_encoder_is_told_by_its_modules_and_its_own_graph_is_not_taken(tmp_path: Path) -> None:
    """A graph of the hub gives all logits of all tokens."""
    toy = make_toy_encoder(tmp_path / "toy").path
    files = _files(toy, architecture="BertForMaskedLM") | {"model.safetensors": b"weights"}
    modules = [{"type": "sentence_transformers.sparse_encoder.models.MLMTransformer"}]
    mirror_model(tmp_path / "mirror", "acme/splade", files | {"modules.json": json.dumps(modules).encode()})
    found = download("acme/splade", mirror=tmp_path / "mirror")
    assert (found.kind, found.graph) == ("sparse_encoder", None)
    mirror_model(tmp_path / "other", "acme/base", files)
    assert download("acme/base", mirror=tmp_path / "other").kind == "encoder"


def test_a_repository_with_nothing_but_pickled_weights_is_refused(
    tmp_path: Path, encoder_files: dict[str, bytes]
) -> None:
    del encoder_files["onnx/model.onnx"]
    mirror_model(tmp_path / "mirror", ENCODER, {**encoder_files, "pytorch_model.bin": b"\x80\x04."})
    with pytest.raises(ModelError, match=r"has no model\.safetensors: weights saved by pickle are never opened"):
        download(ENCODER, mirror=tmp_path / "mirror")


def test_a_file_that_is_not_what_its_digest_says_is_refused(tmp_path: Path, encoder_files: dict[str, bytes]) -> None:
    snapshot = mirror_model(tmp_path / "mirror", ENCODER, encoder_files)
    blob = (snapshot / "onnx" / "model.onnx").resolve()
    blob.write_bytes(blob.read_bytes()[:-1] + b"x")
    with pytest.raises(ModelError, match="has not the digest"):
        download(ENCODER, mirror=tmp_path / "mirror")


def test_a_mirror_copied_without_its_links_is_refused(tmp_path: Path, encoder_files: dict[str, bytes]) -> None:
    snapshot = mirror_model(tmp_path / "mirror", ENCODER, encoder_files)
    content = (snapshot / "config.json").read_bytes()
    (snapshot / "config.json").unlink()
    (snapshot / "config.json").write_bytes(content)
    with pytest.raises(ModelError, match="copy a mirror with its links"):
        download(ENCODER, mirror=tmp_path / "mirror")


@pytest.mark.parametrize("name", ["acme/absent", "not a name", "a/b/c"])
def test_a_name_that_the_mirror_lacks_is_an_error_that_names_it(tmp_path: Path, name: str) -> None:
    (tmp_path / "mirror").mkdir()
    with pytest.raises(ModelError, match=f"model '{name}'"):
        download(name, mirror=tmp_path / "mirror")
