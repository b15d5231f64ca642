"""Trains a sparse encoder: a passage's weighted word pieces meet those of the queries that it answers (Formal et al.
2021, "SPLADE v2": https://arxiv.org/abs/2109.10086).

The loss is a bi-encoder's (see `bridge.training.encoder`) over sums of products of weights, and a price of all weights:
FLOPS (Paria et al. 2020, "Minimizing FLOPs to learn efficient sparse representations":
https://arxiv.org/abs/2004.05665). A query weighs its own pieces by inverse document frequency, as a search does by
default (Geng et al. 2024, "Towards competitive search relevance for inference-free learned sparse retrievers":
https://arxiv.org/abs/2411.04403), or is encoded as a passage is.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import BertForMaskedLM

from bridge.models.sparse_encoder import is_term
from bridge.models.tokenization import TextTokenizer
from bridge.training.base_model import BASE_OPTIONS, base_tokenizer, freeze_embeddings, in_chunks
from bridge.training.sparse_export import checked_masked_model, inverse_document_frequencies

_FIRST_DEVIATION = 3.0
"""Deviation of a query's logits over the passages that the scale is fitted on; a sum of weights can have any."""

_READING_CHUNK_TOKENS = 8192


class TermEncoder(nn.Module):  # type: ignore[misc]  # torch is untyped here
    """A masked language model that weighs word pieces as `bridge.training.output_layer` does, without its limit of
    terms. `tokenizer` neither pads nor has a limit below `max_tokens`. `log_scale` is trained too: logits are sums of
    products times its exponential.
    """

    def __init__(self, model: BertForMaskedLM, tokenizer: Tokenizer, idf: Tensor | None, *, flops: float) -> None:
        """`idf`: float32 (n_pieces,), the weights of a query's own pieces; None encodes queries. `flops`: the price of
        weights in the loss."""
        super().__init__()
        self.bert = model
        self.tokenizer = tokenizer
        self.log_scale = nn.Parameter(torch.tensor(0.0))
        self._flops = flops
        pieces = [tokenizer.id_to_token(number) or "" for number in range(model.config.vocab_size)]
        self.register_buffer("_is_term", torch.tensor([is_term(piece) for piece in pieces]), persistent=False)
        self.register_buffer("_idf", idf, persistent=False)

    @classmethod
    def of(cls, folder: Path, *, max_tokens: int, flops: float, idf_texts: Sequence[str] | None) -> "TermEncoder":
        """Opens a transformers folder with `tokenizer.json`, its embeddings frozen; `idf_texts`: the texts in which a
        query's word pieces are counted, or None to encode queries.

        Raises:
            ModelError: the folder is no masked language model of BERT's architecture.
        """
        checked_masked_model(folder)
        model = BertForMaskedLM.from_pretrained(folder, **BASE_OPTIONS)
        freeze_embeddings(model.bert)
        tokenizer = base_tokenizer(folder, min(max_tokens, model.config.max_position_embeddings))
        if idf_texts is None:
            return cls(model, tokenizer, None, flops=flops)
        counted = inverse_document_frequencies(TextTokenizer(base_tokenizer(folder), max_tokens=max_tokens), idf_texts)
        idf = torch.zeros(model.config.vocab_size)
        idf[: len(counted)] = torch.from_numpy(counted)
        return cls(model, tokenizer, idf, flops=flops)

    def forward(self, texts: Sequence[str], *, chunk_tokens: int) -> Tensor:
        """float32 (n_texts, n_pieces): the weights of each text's word pieces, input order, on the model's device."""
        return in_chunks(self.tokenizer.encode_batch(list(texts)), chunk_tokens, self.bert.device, self._weighed)

    def _weighed(self, ids: Tensor, mask: Tensor, types: Tensor) -> Tensor:
        states = self.bert.bert(input_ids=ids, attention_mask=mask, token_type_ids=types).last_hidden_state
        head = self.bert.cls.predictions
        states, table, bias = head.transform(states), head.decoder.weight, head.decoder.bias.float()
        # Of equal tokens the first one counts, as in the exported graph. Only the largest logit of a piece has a
        # gradient, and none below zero has: so the wide product itself needs none.
        repeated = (ids.unsqueeze(1) == ids.unsqueeze(2)).tril(diagonal=-1).any(dim=2) | (mask == 0)
        with torch.no_grad():
            largest, token = (states @ table.T).masked_fill(repeated.unsqueeze(2), -torch.inf).max(dim=1)
            row, piece = ((largest + bias > 0) & self._is_term).nonzero(as_tuple=True)
        logits = (states[row, token[row, piece]] * table[piece]).sum(dim=1).float() + bias[piece]
        weights = torch.zeros(largest.shape, device=ids.device)
        return weights.index_put((row, piece), logits.relu().log1p())

    def _of_queries(self, queries: Sequence[str], chunk_tokens: int) -> Tensor:
        if self._idf is None:
            return self(queries, chunk_tokens=chunk_tokens)
        weights = torch.zeros((len(queries), len(self._idf)), device=self._idf.device)
        for row, encoding in enumerate(self.tokenizer.encode_batch(list(queries))):
            weights[row, encoding.ids] = 1.0
        return weights * self._idf.float() * self._is_term

    def compare(self, queries: Sequence[str], passages: Sequence[str], *, chunk_tokens: int) -> tuple[Tensor, Tensor]:
        """Logits, float32 (n_queries, n_passages), and the price of the weights that they are made of."""
        of_queries, of_passages = self._of_queries(queries, chunk_tokens), self(passages, chunk_tokens=chunk_tokens)
        price = self._flops * flops(of_passages)
        if self._idf is None:
            price = price + self._flops * flops(of_queries)
        return of_queries @ of_passages.T * self.log_scale.float().exp(), price

    def fit_scale(self, queries: Sequence[str], passages: Sequence[str]) -> None:
        """Sets the scale so that a softmax over the logits of these neither knows everything nor nothing."""
        with torch.inference_mode():
            logits, _ = self.compare(queries, passages, chunk_tokens=_READING_CHUNK_TOKENS)
            deviation = float(logits.std(dim=1).mean())
        with torch.no_grad():
            self.log_scale.fill_(math.log(_FIRST_DEVIATION / max(deviation, 1e-6)))

    def score(self, query: str, passages: Sequence[str]) -> NDArray[np.float32]:
        """The sum of products of weights of each passage, scaled: float32 (n_passages,)."""
        with torch.inference_mode():
            logits: NDArray[np.float32] = (
                self.compare([query], passages, chunk_tokens=_READING_CHUNK_TOKENS)[0][0].cpu().numpy()
            )
        return logits


def flops(weights: Tensor) -> Tensor:
    """How many products a search computes, as far as it has a gradient: the sum over pieces of the squared mean weight
    (Paria et al. 2020, equation 3). `weights`: float32 (n_texts, n_pieces)."""
    return weights.mean(dim=0).square().sum()
