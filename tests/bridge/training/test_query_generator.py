from pathlib import Path

import pytest

pytest.importorskip("torch", reason="training needs the train extra")
pytest.importorskip("transformers", reason="training needs the train extra")

import torch
import transformers
from tokenizers import Tokenizer

from bridge.training.data import LabelledPair
from bridge.training.loop import LoopSettings, TrainingLoop
from bridge.training.query_generator import (
    GenerationLoss,
    GenerationSettings,
    query_generator_from,
    save_query_generator,
)
from tests.toys import WORDS

PAIRS = [
    LabelledPair(topic, f"{topic} {WORDS[30 + number % 8]} {WORDS[20 + number % 7]}", "", relevant=True, source="toy")
    for number, topic in enumerate(WORDS[:16])
]
SETTINGS = GenerationSettings(pairs_per_step=8, max_passage_tokens=16, max_query_tokens=8)


def tokenizer_of(base: Path) -> Tokenizer:
    return Tokenizer.from_file(str(base / "tokenizer.json"))


def test_the_encoder_is_the_base_layer_for_layer(toy_base: Path) -> None:
    bert = transformers.BertModel.from_pretrained(toy_base, add_pooling_layer=False).eval()
    bart = query_generator_from(toy_base, n_encoder_layers=4, n_decoder_layers=2, n_frozen_layers=4).eval()
    # BART's layer norm adds 1e-5 to the variance, BERT's 1e-12: that is the whole difference.
    for module in bart.modules():
        if isinstance(module, torch.nn.LayerNorm):
            module.eps = bert.config.layer_norm_eps
    tokenizer = tokenizer_of(toy_base)
    ids = torch.tensor([tokenizer.encode("wing pressure flow of a plate").ids])
    mask = torch.ones_like(ids)
    with torch.inference_mode():
        expected = bert(input_ids=ids, attention_mask=mask).last_hidden_state
        states = bart.model.encoder(input_ids=ids, attention_mask=mask).last_hidden_state
    assert (states - expected).abs().max() < 1e-4


def test_training_learns_to_name_the_topic(toy_base: Path, tmp_path: Path) -> None:
    torch.manual_seed(1)
    tokenizer = tokenizer_of(toy_base)
    model = query_generator_from(toy_base, n_encoder_layers=2, n_decoder_layers=2, n_frozen_layers=0)
    loss = GenerationLoss(model, tokenizer, PAIRS, SETTINGS, seed=1)
    with torch.inference_mode():
        before = float(loss(0, 0.0))
    TrainingLoop(
        model,
        loss=loss,
        evaluate=dict,
        settings=LoopSettings(total_steps=150, learning_rate=3e-3, warmup_steps=10, averaging=0.9),
        folder=tmp_path,
    ).run()
    with torch.inference_mode():
        assert float(loss(0, 0.0)) < 0.2 * before
    named = 0
    for pair in PAIRS:
        ids = torch.tensor([tokenizer.encode(pair.passage).ids])
        written = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=4, do_sample=False)
        named += written[0, 1:].tolist()[:1] == [tokenizer.token_to_id(pair.query)]
    assert named >= 14


def test_pairs_without_relevance_are_not_learnt(toy_base: Path) -> None:
    model = query_generator_from(toy_base, n_encoder_layers=2, n_decoder_layers=1, n_frozen_layers=0)
    irrelevant = LabelledPair("bee", "wing", "", relevant=False, source="toy")
    with_irrelevant = GenerationLoss(model, tokenizer_of(toy_base), [*PAIRS, irrelevant], SETTINGS, seed=1)
    assert (
        with_irrelevant.epochs.n_steps
        == GenerationLoss(model, tokenizer_of(toy_base), PAIRS, SETTINGS, seed=1).epochs.n_steps
    )


def test_the_saved_folder_converts_and_generates_what_torch_generates(toy_base: Path, tmp_path: Path) -> None:
    ctranslate2 = pytest.importorskip("ctranslate2", reason="needs the ctranslate2 extra")
    torch.manual_seed(2)
    model = query_generator_from(toy_base, n_encoder_layers=2, n_decoder_layers=2, n_frozen_layers=0).eval()
    save_query_generator(model, toy_base, tmp_path / "model")
    ctranslate2.converters.TransformersConverter(str(tmp_path / "model")).convert(str(tmp_path / "converted"))
    translator = ctranslate2.Translator(str(tmp_path / "converted"), compute_type="float32")
    encoding = tokenizer_of(toy_base).encode("wing pressure flow")
    [translation] = translator.translate_batch(
        [encoding.tokens], beam_size=1, max_decoding_length=6, min_decoding_length=6
    )
    ids = torch.tensor([encoding.ids])
    expected = model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=6, min_new_tokens=6, do_sample=False
    )
    tokenizer = tokenizer_of(toy_base)
    assert [tokenizer.token_to_id(token) for token in translation.hypotheses[0]] == expected[0, 1:].tolist()
