"""A sentence encoder small enough to train in seconds, in transformers' layout."""

from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from tests.toys import toy_tokenizer


@pytest.fixture(scope="session")
def toy_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch = pytest.importorskip("torch", reason="training needs the train extra")
    transformers = pytest.importorskip("transformers", reason="training needs the train extra")
    folder = tmp_path_factory.mktemp("base")
    tokenizer = toy_tokenizer()
    tokenizer.save(str(folder / "tokenizer.json"))
    torch.manual_seed(1)
    transformers.BertModel(_toy_configuration(tokenizer), add_pooling_layer=False).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def toy_masked_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with an output layer."""
    torch = pytest.importorskip("torch", reason="training needs the train extra")
    transformers = pytest.importorskip("transformers", reason="training needs the train extra")
    folder = tmp_path_factory.mktemp("masked")
    tokenizer = toy_tokenizer()
    tokenizer.save(str(folder / "tokenizer.json"))
    torch.manual_seed(1)
    transformers.BertForMaskedLM(_toy_configuration(tokenizer)).save_pretrained(folder)
    return folder


def _toy_configuration(tokenizer: Tokenizer) -> Any:
    from transformers import BertConfig

    return BertConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=48,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=96,
        max_position_embeddings=64,
        initializer_range=0.1,
    )
