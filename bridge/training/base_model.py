"""Opens a BERT in transformers' layout for training, and encodes many texts in chunks."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Encoding, Tokenizer
from torch import Tensor
from transformers import BertModel

from bridge.training.batches import padded_chunks

PRECISION = torch.bfloat16
"""Has the range of float32, so no loss scaling is needed; AMX and tensor cores are fastest with it."""

NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
"""With few epochs, dropout costs a third of the speed and gains nothing."""

BASE_OPTIONS: dict[str, Any] = {
    "dtype": torch.float32,
    "use_safetensors": True,
    # On CPU the fused kernel's backward pass is slower than plain matrix products.
    "attn_implementation": "eager",
    **NO_DROPOUT,
}


def training_device() -> torch.device:
    """The accelerator if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def freeze_embeddings(bert: BertModel) -> None:
    """Freezes word and position embeddings: training them costs speed and gains nothing."""
    bert.embeddings.word_embeddings.requires_grad_(False)
    bert.embeddings.position_embeddings.requires_grad_(False)


def base_tokenizer(base: Path, max_tokens: int | None = None) -> Tokenizer:
    """The base's tokenizer, without padding; a pair becomes [CLS] query [SEP] passage [SEP].

    Truncates to `max_tokens`, the longer text of a pair first; None does not truncate.
    """
    tokenizer = Tokenizer.from_file(str(base / "tokenizer.json"))
    tokenizer.no_padding()
    if max_tokens is None:
        tokenizer.no_truncation()
    else:
        tokenizer.enable_truncation(max_tokens)
    return tokenizer


def in_chunks(
    encodings: Sequence[Encoding],
    chunk_tokens: int,
    device: torch.device,
    compute: Callable[[Tensor, Tensor, Tensor], Tensor],
) -> Tensor:
    """One row of `compute(ids, mask, token_types)` for each encoding, input order; `compute` takes int64 (n_sequences,
    n_tokens) and sees at most `chunk_tokens` padded tokens at once."""
    order: list[int] = []
    results: list[Tensor] = []
    for rows, inputs in padded_chunks(encodings, chunk_tokens):
        order += rows
        results.append(compute(*torch.from_numpy(inputs).to(device)))
    return torch.cat(results)[torch.tensor(order, device=device).argsort()]
