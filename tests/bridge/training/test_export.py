"""Transformers folders → model folders, on models of a few thousand weights."""

import json
from collections.abc import Callable
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

pytest.importorskip("torch", reason="the extra train is not installed")
pytest.importorskip("transformers", reason="the extra train is not installed")

import torch
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    PreTrainedTokenizerFast,
)

from bridge.errors import ModelError
from bridge.models.cross_encoder import CrossEncoder
from bridge.models.encoder import Encoder
from bridge.models.query_generator import QueryGenerator
from bridge.models.session import Session
from bridge.models.tokenization import load_tokenizer, padded
from bridge.training import export
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
TEXTS = ["cat dog", "the red dress and the blue shoe", "file"]


def _saved(model: Any, folder: Path) -> Path:
    model.save_pretrained(folder)
    toy_tokenizer().save(str(folder / "tokenizer.json"))
    return folder


@pytest.fixture
def encoder(tmp_path: Path) -> Path:
    torch.manual_seed(1)
    return _saved(BertModel(BertConfig(**SHAPE)), tmp_path / "encoder")


@pytest.fixture
def cross_encoder(tmp_path: Path) -> Path:
    torch.manual_seed(1)
    return _saved(BertForSequenceClassification(BertConfig(**SHAPE, num_labels=1)), tmp_path / "cross")


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_an_exported_encoder_agrees_with_torch(encoder: Path, tmp_path: Path, pooling: Any) -> None:
    card = Card(name="small", licence="Apache-2.0", max_tokens=32, pooling=pooling)
    made = export.export_encoder(encoder, tmp_path / "out", card)
    model = BertModel.from_pretrained(encoder).eval()
    for text, embedding in zip(TEXTS, Encoder.load(made).encode(TEXTS), strict=True):
        ids = torch.tensor([toy_tokenizer().encode(text).ids])
        with torch.inference_mode():
            states = model(input_ids=ids).last_hidden_state[0].numpy()
        pooled = states.mean(axis=0) if pooling == "mean" else states[0]
        assert embedding == pytest.approx(pooled / np.linalg.norm(pooled), abs=1e-4)


def test_an_exported_cross_encoder_agrees_with_torch(cross_encoder: Path, tmp_path: Path) -> None:
    made = export.export_cross_encoder(cross_encoder, tmp_path / "out", CARD)
    model = BertForSequenceClassification.from_pretrained(cross_encoder).eval()
    for passage, score in zip(TEXTS, CrossEncoder.load(made).score("red cat", TEXTS), strict=True):
        pair = toy_tokenizer().encode("red cat", passage)
        with torch.inference_mode():
            logits = model(input_ids=torch.tensor([pair.ids]), token_type_ids=torch.tensor([pair.type_ids])).logits
        assert score == pytest.approx(logits.item(), abs=1e-4)


def test_only_the_first_token_goes_through_the_last_layer(cross_encoder: Path, tmp_path: Path) -> None:
    """And what pads a shorter text of a batch changes nothing."""
    made = export.export_cross_encoder(cross_encoder, tmp_path / "out", CARD)
    nodes = onnx.load(str(made.model_file)).graph.node
    assert [node.op_type for node in nodes if "Attention" in node.op_type] == ["Attention", "MultiHeadAttention"]
    tokenizer, session = load_tokenizer(made), Session(made.model_file)
    pairs = tokenizer.pairs("red cat", TEXTS)
    assert len({pair["input_ids"].size for pair in pairs}) > 1
    alone = [session.run(pair).item() for pair in pairs]
    assert session.run(padded(pairs)).reshape(-1).tolist() == pytest.approx(alone, abs=1e-5)


def test_positions_that_no_text_reaches_are_left_out(cross_encoder: Path, tmp_path: Path) -> None:
    made = export.export_cross_encoder(cross_encoder, tmp_path / "out", CARD)
    tables = [t for t in onnx.load(str(made.model_file)).graph.initializer if "position_embeddings" in t.name]
    assert [list(table.dims) for table in tables] == [[CARD.max_tokens, SHAPE["hidden_size"]]]
    assert np.isfinite(CrossEncoder.load(made).score("red cat", [" ".join(WORDS * 3)])).all()


@pytest.fixture
def generator(tmp_path: Path) -> Path:
    torch.manual_seed(1)
    size = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 2, "vocab_size": SHAPE["vocab_size"]}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32}
    ids = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3, "decoder_start_token_id": 2}
    config = BartConfig(**size, **heads, **ids, max_position_embeddings=64, forced_eos_token_id=None, init_std=0.5)
    config.normalize_before = False  # asked for by CTranslate2's converter
    source = _saved(BartForConditionalGeneration(config), tmp_path / "generator")
    PreTrainedTokenizerFast(
        tokenizer_object=toy_tokenizer(), pad_token="[PAD]", bos_token="[CLS]", eos_token="[SEP]", unk_token="[UNK]"
    ).save_pretrained(source)
    return source


@pytest.mark.parametrize("engine", ["ctranslate2", "onnx"])
def test_both_engines_follow_the_exported_query_generator(
    generator: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: Any
) -> None:
    """Drawing from one word only, each engine writes what torch writes greedily, without repetitions."""
    for module in ("onnx_engine", "ctranslate2_engine"):
        monkeypatch.setattr(f"bridge.models.{module}.TOP_K", 1)
    made = export.export_query_generator(generator, tmp_path / "out", CARD, engine=engine)
    model = BartForConditionalGeneration.from_pretrained(generator).eval()
    for text, queries in zip(
        TEXTS, QueryGenerator.load(made).generate(TEXTS, n_queries=1, max_new_tokens=8), strict=True
    ):
        ids = torch.tensor([toy_tokenizer().encode(text).ids])
        written = model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=8, num_beams=1, do_sample=False
        )
        words = [
            str(toy_tokenizer().id_to_token(number)) for number in written[0].tolist() if number >= len(SPECIAL_TOKENS)
        ]
        assert queries == [" ".join(word for word, _ in groupby(words))]


def test_the_onnx_engine_gives_the_same_queries_whatever_the_threads(generator: Path, tmp_path: Path) -> None:
    made = export.export_query_generator(generator, tmp_path / "out", CARD, engine="onnx")
    asked: dict[str, Any] = {"n_queries": 3, "max_new_tokens": 6}
    first = QueryGenerator.load(made, threads=1).generate(TEXTS * 4, **asked, seed=1)
    assert QueryGenerator.load(made, threads=3).generate(TEXTS * 4, **asked, seed=1) == first
    assert QueryGenerator.load(made, threads=1).generate(TEXTS * 4, **asked, seed=2) != first
    assert all(len(query.split()) <= 6 for queries in first for query in queries)


def _several_labels(folder: Path) -> None:
    _saved(BertForSequenceClassification(BertConfig(**SHAPE, num_labels=3)), folder)


def _names_code(folder: Path) -> None:
    file = folder / "config.json"
    canary = {"auto_map": {"AutoModelForSequenceClassification": "modeling.Canary"}}
    file.write_text(json.dumps(json.loads(file.read_text()) | canary))
    (folder / "modeling.py").write_text("from pathlib import Path\nPath(__file__).with_name('canary').touch()\n")


def _names_kernel(folder: Path) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"_attn_implementation": "someone/kernel"}))


def _pickled(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


@pytest.mark.case("R14")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_several_labels, "has 3 labels"),
        (_names_code, r"names code to load \(auto_map\)"),
        (_names_kernel, r"names code to load \(_attn_implementation\)"),
        (_pickled, r"has no model\.safetensors"),
    ],
)
def test_a_source_that_is_unsafe_or_unfit_is_refused(
    cross_encoder: Path, tmp_path: Path, change: Callable[[Path], None], message: str
) -> None:
    change(cross_encoder)
    with pytest.raises(ModelError, match=message):
        export.export_cross_encoder(cross_encoder, tmp_path / "out", CARD)
    assert not (cross_encoder / "canary").exists()


def test_a_graph_that_disagrees_with_torch_is_refused(
    encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "MAX_DIFFERENCE", -1.0)
    with pytest.raises(ModelError, match="differs from torch"):
        export.export_encoder(encoder, tmp_path / "out", CARD)
