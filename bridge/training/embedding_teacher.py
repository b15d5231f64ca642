"""A sentence encoder in torch: the teacher for mining and for distillation."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer
from torch import Tensor
from transformers import BertModel

from bridge.training.device import PRECISION, training_device

_BATCH = 64


class EmbeddingTeacher:
    """Mean-pooled BERT embeddings of unit length (Reimers and Gurevych 2019)."""

    def __init__(self, folder: Path, *, max_tokens: int) -> None:
        self._device = training_device()
        self._model = BertModel.from_pretrained(
            folder, dtype=torch.float32, use_safetensors=True, add_pooling_layer=False
        )
        self._model.to(self._device, PRECISION).eval()
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(max_tokens)

    def __call__(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """float32 (n_texts, dimension), rows of unit length, input order."""
        encodings = self._tokenizer.encode_batch(list(texts))
        by_length = sorted(range(len(texts)), key=lambda row: len(encodings[row].ids))
        embeddings = np.zeros((len(texts), self._model.config.hidden_size), dtype=np.float32)
        for start in range(0, len(texts), _BATCH):
            rows = by_length[start : start + _BATCH]
            embeddings[rows] = self._embed([encodings[row] for row in rows]).cpu().numpy()
        return embeddings

    def _embed(self, encodings: Sequence[Encoding]) -> Tensor:
        """`encodings` from the shortest to the longest."""
        width = len(encodings[-1].ids)
        ids = torch.zeros((len(encodings), width), dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, encoding in enumerate(encodings):
            ids[row, : len(encoding.ids)] = torch.tensor(encoding.ids)
            mask[row, : len(encoding.ids)] = 1
        ids, mask = ids.to(self._device), mask.to(self._device)
        with torch.inference_mode():
            states = self._model(input_ids=ids, attention_mask=mask).last_hidden_state
        weights = mask.unsqueeze(-1).float()
        mean = (states.float() * weights).sum(1) / weights.sum(1)
        return torch.nn.functional.normalize(mean, dim=-1)
