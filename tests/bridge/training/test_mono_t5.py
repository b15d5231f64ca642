"""monoT5, laid out as on the hub, to a cross-encoder: a T5 of a few thousand random weights."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="the extra train is not installed")
pytest.importorskip("transformers", reason="the extra train is not installed")

import torch
from click.testing import CliRunner
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import T5Config, T5ForConditionalGeneration

from bridge.commands.models import command
from bridge.errors import ModelError
from bridge.models.artifact import read_folder
from bridge.models.cross_encoder import CrossEncoder
from bridge.training import export, mono_t5
from bridge.training.quantization import quantize_folder
from bridge.training.transformers_folder import Card
from tests.hub_mirror import mirror_model
from tests.toys import WORDS

CARD = Card(name="small", licence="Apache-2.0", max_tokens=256)
QUERY = "cat dog"
PASSAGES = ["the red dress", "dog", "", "fish and cat. " * 5, "bird — 数字"]


def _tokenizer(words: list[str]) -> Tokenizer:
    """Word pieces in the way of T5's: a mark instead of the space before a word, one end, no beginning."""
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -20.0), ("▁", -9.0)]
    pieces += [(f"▁{word}", -4.0) for word in words] + [(letter, -10.0) for letter in "abcdefghijklmnopqrstuvwxyz:."]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=2))
    tokenizer.normalizer = normalizers.Replace(Regex(" {2,}"), " ")
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return tokenizer


def _saved(folder: Path, words: list[str], **changes: Any) -> Path:
    torch.manual_seed(3)
    tokenizer = _tokenizer(words)
    sizes = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4}
    ids = {"decoder_start_token_id": 0, "pad_token_id": 0, "eos_token_id": 1}
    model = T5ForConditionalGeneration(T5Config(vocab_size=tokenizer.get_vocab_size(), **sizes, **ids, **changes))
    model.save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


ANSWERING = [*WORDS, "true", "false", "Query", "Document", "Relevant"]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return _saved(tmp_path / "source", ANSWERING)


def _by_torch(source: Path, query: str, passage: str) -> float:
    """Logit of "true" less that of "false", from the prompt as one text."""
    tokenizer = Tokenizer.from_file(str(source / "tokenizer.json"))
    model = T5ForConditionalGeneration.from_pretrained(source).eval()
    ids = torch.tensor([tokenizer.encode(f"Query: {query} Document: {passage} Relevant:").ids])
    with torch.inference_mode():
        logits = model(input_ids=ids, decoder_input_ids=torch.tensor([[0]])).logits[0, 0]
    return float(logits[tokenizer.token_to_id("▁true")] - logits[tokenizer.token_to_id("▁false")])


@pytest.mark.parametrize("tied", [True, False])
def test_the_score_is_how_much_likelier_true_is_than_false(tmp_path: Path, tied: bool) -> None:
    source = _saved(tmp_path / "source", ANSWERING, tie_word_embeddings=tied)
    made = export.export_cross_encoder(source, tmp_path / "out", CARD)
    scores = CrossEncoder.load(made).score(QUERY, PASSAGES)
    assert scores == pytest.approx([_by_torch(source, QUERY, passage) for passage in PASSAGES], abs=1e-4, rel=1e-4)
    assert np.std(scores) > 0.01


def test_a_passage_is_cut_and_the_prompt_is_not(source: Path, tmp_path: Path) -> None:
    made = export.export_cross_encoder(source, tmp_path / "out", CARD)
    cross_encoder = CrossEncoder.load(made)
    room = cross_encoder.tokenizer.passage_room(QUERY)
    long = cross_encoder.pairs(QUERY, [" ".join(["fish"] * 300)])[0]
    assert long["input_ids"].size == CARD.max_tokens
    expected = _by_torch(source, QUERY, " ".join(["fish"] * room))
    assert cross_encoder.score_pair(long) == pytest.approx(expected, abs=1e-4)


def test_the_int8_form_ranks_alike(source: Path, tmp_path: Path) -> None:
    made = export.export_cross_encoder(source, tmp_path / "out", CARD)
    pairs = [(first, f"{second} {third}") for first, second, third in zip(WORDS, WORDS[3:], WORDS[7:], strict=False)]
    small = quantize_folder(made, tmp_path / "int8", pairs)
    assert small.manifest.prompt == list(mono_t5.PROMPT)
    assert small.manifest.figures["kendall_tau"] > 0.8
    assert small.model_file.stat().st_size < made.model_file.stat().st_size


def test_it_is_fetched_by_its_name_on_the_hub(source: Path, tmp_path: Path) -> None:
    files = {path.name: path.read_bytes() for path in source.iterdir()}
    mirror_model(tmp_path / "mirror", "castorini/monot5-base-msmarco", files)
    arguments = ["fetch", "castorini/monot5-base-msmarco", "--mirror", str(tmp_path / "mirror")]
    result = CliRunner().invoke(command, [*arguments, "--out", str(tmp_path / "out")], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    folder = read_folder(tmp_path / "out")
    assert folder.manifest.kind == "cross_encoder"
    score = CrossEncoder.load(folder).score(QUERY, PASSAGES[:1])[0]
    assert score == pytest.approx(_by_torch(source, QUERY, PASSAGES[0]), abs=1e-4)


def test_a_t5_without_the_answers_is_refused(tmp_path: Path) -> None:
    source = _saved(tmp_path / "source", WORDS)
    with pytest.raises(ModelError, match="has no token 'true': this is no monoT5"):
        export.export_cross_encoder(source, tmp_path / "out", CARD)
