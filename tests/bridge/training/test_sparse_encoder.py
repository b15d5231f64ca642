"""A sparse encoder learns which word pieces its passages need."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs the train extra")
pytest.importorskip("transformers", reason="training needs the train extra")
pytest.importorskip("bm25s", reason="training needs the train extra")

import torch

from bridge.errors import ModelError
from bridge.models.sparse_encoder import SparseEncoder
from bridge.training.encoder import EmbeddingLoss, EmbeddingSettings
from bridge.training.mining import CandidateList, CandidateSet, PooledPassage
from bridge.training.sparse_encoder import TermEncoder, flops
from bridge.training.sparse_export import export_sparse_encoder
from bridge.training.teachers import ListTeaching
from bridge.training.transformers_folder import Card
from tests.toys import WORDS

TEXTS = ["cat dog cat", "the red dress and the blue shoe", "file"]
SETTINGS = EmbeddingSettings(lists_per_step=8, negatives=2, max_tokens=32, chunk_tokens=64)


def opened(base: Path, *, idf_texts: list[str] | None = None, price: float = 0.0) -> TermEncoder:
    return TermEncoder.of(base, max_tokens=32, flops=price, idf_texts=idf_texts)


def loss_of(encoder: TermEncoder) -> EmbeddingLoss:
    """A query is one word, and its passage is two others: only terms that the passage lacks can find it."""
    n = 8
    passages = [PooledPassage(f"{WORDS[20 + i]} {WORDS[30 + i]}", "", "toys") for i in range(n)]
    lists = [CandidateList(WORDS[i], "toys", i, [(i + 1) % n], [(i + 2) % n], [0.5, 0.3, 0.2], []) for i in range(n)]
    found = CandidateSet(passages, lists)
    teaching = ListTeaching(found, [[1.0, 0.0, 0.0]] * n)
    teaching.share = 0.0
    return EmbeddingLoss(encoder, found, teaching, SETTINGS, seed=1)


def trained(encoder: TermEncoder, *, steps: int) -> TermEncoder:
    loss = loss_of(encoder)
    optimizer = torch.optim.AdamW([weight for weight in encoder.parameters() if weight.requires_grad], lr=5e-3)
    for step in range(steps):
        optimizer.zero_grad()
        loss(step, 1.0).backward()
        optimizer.step()
    return encoder


def n_terms(encoder: TermEncoder) -> float:
    with torch.inference_mode():
        weights = encoder([f"{WORDS[20 + i]} {WORDS[30 + i]}" for i in range(8)], chunk_tokens=64)
    return float((weights > 0).sum(dim=1).float().mean())


def test_weights_are_those_of_the_exported_graph(toy_masked_model: Path, tmp_path: Path) -> None:
    encoder = opened(toy_masked_model).eval()
    with torch.inference_mode():
        weights = encoder(TEXTS, chunk_tokens=8).numpy()
    made = SparseEncoder.load(export_sparse_encoder(toy_masked_model, tmp_path / "out", Card("toy", "Apache-2.0")))
    pieces = made.tokenizer.pieces
    for row, terms in zip(weights, made.encode(TEXTS), strict=True):
        assert {pieces[at]: row[at] for at in np.flatnonzero(row)} == pytest.approx(terms, abs=1e-4)


def test_gradients_are_those_of_the_whole_output_layer(toy_masked_model: Path) -> None:
    encoder = opened(toy_masked_model)
    texts = [f"{WORDS[3]} {WORDS[7]}", WORDS[9]]

    def gradient() -> torch.Tensor:
        weight = encoder.bert.bert.encoder.layer[0].output.dense.weight
        found: torch.Tensor = weight.grad.clone()
        encoder.zero_grad()
        return found

    (encoder(texts, chunk_tokens=512) ** 2).sum().backward()
    ours = gradient()
    total = torch.zeros(())
    for text in texts:
        logits = encoder.bert(input_ids=torch.tensor([encoder.tokenizer.encode(text).ids])).logits[0]
        total = total + (logits.amax(dim=0).relu().log1p()[encoder._is_term] ** 2).sum()
    total.backward()
    assert ours.numpy() == pytest.approx(gradient().numpy(), abs=1e-4)


@pytest.mark.parametrize("queries", ["idf", "model"])
def test_training_adds_the_words_that_queries_have_and_passages_lack(toy_masked_model: Path, queries: str) -> None:
    encoder = opened(toy_masked_model, idf_texts=TEXTS if queries == "idf" else None)
    trained(encoder, steps=60)
    passages = [f"{WORDS[20 + i]} {WORDS[30 + i]}" for i in range(8)]
    assert [int(np.argmax(encoder.score(WORDS[i], passages))) for i in range(8)] == list(range(8))


def test_a_higher_price_leaves_fewer_terms(toy_masked_model: Path) -> None:
    free, dear = (trained(opened(toy_masked_model, idf_texts=TEXTS, price=price), steps=60) for price in (0.0, 0.05))
    assert 1 <= n_terms(dear) < 0.7 * n_terms(free)


def test_the_price_is_the_squared_mean_weight_of_each_piece() -> None:
    assert float(flops(torch.tensor([[2.0, 0.0, 1.0], [0.0, 0.0, 1.0]]))) == pytest.approx(1.0 + 0.0 + 1.0)


def test_the_scale_is_fitted_to_the_weights(toy_masked_model: Path) -> None:
    encoder = opened(toy_masked_model, idf_texts=TEXTS).eval()
    queries, passages = WORDS[:6], [f"{WORDS[i]} {WORDS[20 + i]}" for i in range(6)]
    encoder.fit_scale(queries, passages)
    with torch.inference_mode():
        logits, _ = encoder.compare(queries, passages, chunk_tokens=64)
    assert float(logits.std(dim=1).mean()) == pytest.approx(3.0, rel=1e-3)


def test_a_base_without_an_output_layer_is_refused(toy_base: Path) -> None:
    with pytest.raises(ModelError, match="BertForMaskedLM"):
        opened(toy_base)
