"""Masked language models → sparse encoders, on a model of a few thousand weights."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="the extra train is not installed")
pytest.importorskip("transformers", reason="the extra train is not installed")

import torch
from click.testing import CliRunner
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertForMaskedLM, BertModel

from bridge.commands.models import command
from bridge.errors import ModelError
from bridge.models.artifact import IDF, TOKENIZER, read_folder
from bridge.models.sparse_encoder import SparseEncoder
from bridge.models.tokenization import load_tokenizer
from bridge.training.quantization import quantize_folder
from bridge.training.sparse_export import export_sparse_encoder, inverse_document_frequencies
from bridge.training.transformers_folder import Card
from tests.toys import SPECIAL_TOKENS, WORDS, toy_tokenizer

CARD = Card(name="small", licence="Apache-2.0", max_tokens=32)
SHAPE: dict[str, Any] = {
    "vocab_size": len(SPECIAL_TOKENS) + len(WORDS),
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
}
TEXTS = ["cat dog cat", "the red dress and the blue shoe", "file"]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    torch.manual_seed(1)
    model = BertForMaskedLM(BertConfig(**SHAPE, initializer_range=0.5))
    model.save_pretrained(tmp_path / "source")
    toy_tokenizer().save(str(tmp_path / "source" / TOKENIZER))
    return tmp_path / "source"


def expected(source: Path, text: str) -> dict[str, float]:
    """The terms by torch: the maximum over the first occurrence of each token."""
    encoding = toy_tokenizer().encode(text)
    model = BertForMaskedLM.from_pretrained(source).eval()
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([encoding.ids])).logits[0].numpy()
    first = [encoding.ids.index(number) for number in dict.fromkeys(encoding.ids)]
    weights = np.log1p(np.maximum(logits[first].max(axis=0), 0))
    pieces = [*SPECIAL_TOKENS, *WORDS]
    return {
        piece: float(weight) for piece, weight in zip(pieces, weights, strict=True) if weight > 0 and "[" not in piece
    }


def test_terms_agree_with_torch(source: Path, tmp_path: Path) -> None:
    made = export_sparse_encoder(source, tmp_path / "out", CARD)
    for text, terms in zip(TEXTS, SparseEncoder.load(made).encode(TEXTS), strict=True):
        assert terms == pytest.approx(expected(source, text), abs=1e-4)
        assert list(terms.values()) == sorted(terms.values(), reverse=True)


def test_older_names_of_the_layer_norms_are_read(source: Path, tmp_path: Path) -> None:
    """TensorFlow's names for the scale and the shift: `gamma` and `beta`."""
    made = export_sparse_encoder(source, tmp_path / "new", CARD)
    tensors = load_file(source / "model.safetensors")
    renamed = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): (
            tensor * 1.5 if name.endswith("LayerNorm.weight") else tensor
        )
        for name, tensor in tensors.items()
    }
    scaled = {name: tensor * 1.5 if name.endswith("LayerNorm.weight") else tensor for name, tensor in tensors.items()}
    save_file(scaled, source / "model.safetensors", metadata={"format": "pt"})
    plain = export_sparse_encoder(source, tmp_path / "plain", CARD)
    save_file(renamed, source / "model.safetensors", metadata={"format": "pt"})
    old = export_sparse_encoder(source, tmp_path / "old", CARD)
    first, second, third = (SparseEncoder.load(each).encode(TEXTS) for each in (made, plain, old))
    assert third == second != first


def test_rare_words_of_the_texts_weigh_more_in_queries(source: Path, tmp_path: Path) -> None:
    made = export_sparse_encoder(source, tmp_path / "out", CARD, ["cat dog", "cat", "cat cat bird"])
    assert set(made.manifest.files) == {"model.onnx", TOKENIZER, IDF}
    weights = SparseEncoder.load(made).query_terms("cat dog fish")
    assert list(weights) == ["fish", "dog", "cat"]
    assert weights["dog"] == pytest.approx(np.log(1 + 2.5 / 1.5))


def test_frequencies_count_documents(source: Path, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(export_sparse_encoder(source, tmp_path / "out", CARD))
    idf = inverse_document_frequencies(tokenizer, ["cat cat", "dog"])
    assert idf.shape == (SHAPE["vocab_size"],)
    assert idf[tokenizer.pieces.index("cat")] == idf[tokenizer.pieces.index("dog")]


def test_int8_takes_the_frequencies_over(source: Path, tmp_path: Path) -> None:
    pairs = [("", " ".join(WORDS[start : start + 8])) for start in range(16)]
    made = export_sparse_encoder(source, tmp_path / "float32", CARD, TEXTS)
    small = quantize_folder(made, tmp_path / "int8", pairs)
    assert small.manifest.figures["cosine_to_reference"] > 0.9
    both = [SparseEncoder.load(each).query_terms("red cat") for each in (made, small)]
    assert both[0] == both[1]


def test_the_commands_of_the_models_card_make_a_model(source: Path, tmp_path: Path) -> None:
    texts = tmp_path / "texts.jsonl"
    texts.write_text("".join(json.dumps({"passage": " ".join(WORDS[n : n + 8])}) + "\n" for n in range(16)))
    whole, small = str(tmp_path / "float"), str(tmp_path / "int8")
    about = ("--kind", "sparse_encoder", "--name", "small", "--licence", "Apache-2.0", "--max-tokens", "32")
    for arguments in (
        ("export", str(source), whole, *about, "--texts", str(texts)),
        ("quantize", whole, small, "--texts", str(texts)),
        ("verify", small, "--against", whole, "--texts", str(texts)),
    ):
        made = CliRunner().invoke(command, arguments, catch_exceptions=False)
        assert made.exit_code == 0, made.output
    assert SparseEncoder.load(read_folder(Path(small))).query_terms("cat bird")


def test_an_encoder_without_output_layer_is_refused(tmp_path: Path) -> None:
    BertModel(BertConfig(**SHAPE)).save_pretrained(tmp_path)
    toy_tokenizer().save(str(tmp_path / TOKENIZER))
    with pytest.raises(ModelError, match="BertForMaskedLM"):
        export_sparse_encoder(tmp_path, tmp_path / "out", CARD)
