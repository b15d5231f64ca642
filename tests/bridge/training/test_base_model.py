"""A base, opened for training."""

from pathlib import Path

import pytest

pytest.importorskip("torch", reason="training needs the train extra")
pytest.importorskip("transformers", reason="training needs the train extra")

import torch
from torch import Tensor
from transformers import BertModel

from bridge.training.base_model import BASE_OPTIONS, base_tokenizer, freeze_embeddings, in_chunks


def test_rows_come_back_in_input_order_whatever_the_chunks(toy_base: Path) -> None:
    texts = ["cat dog fish", "cat", "the red dress and the blue shoe", "dog cat"]
    encodings = base_tokenizer(toy_base).encode_batch(texts)

    def lengths(ids: Tensor, mask: Tensor, types: Tensor) -> Tensor:
        return mask.sum(dim=1)

    expected = [len(encoding.ids) for encoding in encodings]
    for chunk_tokens in (1, 40, 10_000):
        assert in_chunks(encodings, chunk_tokens, torch.device("cpu"), lengths).tolist() == expected


def test_the_longer_text_of_a_pair_is_cut_first(toy_base: Path) -> None:
    encoding = base_tokenizer(toy_base, 12).encode("cat", "dog " * 40)
    assert len(encoding.ids) == 12
    assert encoding.tokens[1] == "cat"
    assert len(base_tokenizer(toy_base).encode("cat", "dog " * 40).ids) > 40


def test_embeddings_are_frozen_and_layers_are_not(toy_base: Path) -> None:
    bert = BertModel.from_pretrained(toy_base, **BASE_OPTIONS)
    freeze_embeddings(bert)
    frozen = {name for name, weight in bert.named_parameters() if not weight.requires_grad}
    assert frozen == {"embeddings.word_embeddings.weight", "embeddings.position_embeddings.weight"}
    assert bert.config.hidden_dropout_prob == 0
