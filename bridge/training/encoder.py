"""Trains a bi-encoder: a query's vector moves closer to the passage that answers it than to all others.

Loss: mostly the teachers' distributions over the batch, of passages for each query and of queries for each passage (see
`bridge.training.teachers`), mixed with a softmax whose answer is the judged passage (Henderson et al. 2017, "Efficient
natural language response suggestion"; Karpukhin et al. 2020, DPR), with mined negatives. Judgements and predicted
queries mark only some of the answers; teachers score them all (Wang et al. 2022, "GPL: Generative pseudo labeling for
unsupervised domain adaptation of dense retrieval": https://arxiv.org/abs/2112.07577; here the teachers' distribution
instead of their margins, so their scale does not matter).
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import BertModel

from bridge.training.base_model import (
    BASE_OPTIONS,
    PRECISION,
    base_tokenizer,
    freeze_embeddings,
    in_chunks,
    training_device,
)
from bridge.training.batches import Epochs
from bridge.training.mining import CandidateSet, Embed
from bridge.training.teachers import UNKNOWN, Teaching

Pooling = Literal["mean", "cls"]

_READING_CHUNK_TOKENS = 8192
_FIRST_SCALE = 24.0
_LEAST_LOGIT = -1e4
_SHARE_OF_QUERIES = 0.75
"""Weight, in the teachers' loss, of the distributions over passages for each query; the rest is for those over
queries for each passage."""

_FULL_PRICE_AT = 0.3
"""The price of embeddings rises with the square of the progress until here (Formal et al. 2021)."""


@dataclass(frozen=True, slots=True)
class EmbeddingSettings:
    """Settings of a batch.

    `lists_per_step` queries of one domain, each with its passage and `negatives` mined ones; every passage of the batch
    is a negative for all other queries. A passage whose teacher logit exceeds the judged one's by `trusted_margin` is
    probably an answer and is no negative. A query whose judged passage is below one of its mined passages by
    `doubted_margin` probably has a wrong judgement and is left out (a round trip, as in Alberti et al. 2019 and Dai et
    al. 2022).
    """

    lists_per_step: int = 32
    negatives: int = 2
    max_tokens: int = 128
    chunk_tokens: int = 4096
    trusted_margin: float = 2.0
    doubted_margin: float = 3.0


class BiEncoder(Protocol):
    """What the loss trains."""

    def compare(self, queries: Sequence[str], passages: Sequence[str], *, chunk_tokens: int) -> tuple[Tensor, Tensor]:
        """Logits, float32 (n_queries, n_passages), and what the embeddings cost, a number that joins the loss."""


class SentenceEncoder(nn.Module):  # type: ignore[misc]  # torch is untyped here
    """A BERT whose token states are pooled to one vector of unit length. `tokenizer` neither pads nor has a limit
    below `max_tokens`. `log_scale` is trained too: logits are cosines times its exponential."""

    def __init__(self, bert: BertModel, tokenizer: Tokenizer, *, pooling: Pooling = "mean") -> None:
        super().__init__()
        self.bert = bert
        self.tokenizer = tokenizer
        self.log_scale = nn.Parameter(torch.tensor(math.log(_FIRST_SCALE)))
        self._pooling = pooling

    @classmethod
    def of(cls, folder: Path, *, max_tokens: int, pooling: Pooling = "mean") -> "SentenceEncoder":
        """Opens a transformers folder with `tokenizer.json`."""
        bert = BertModel.from_pretrained(folder, add_pooling_layer=False, **BASE_OPTIONS)
        tokenizer = base_tokenizer(folder, min(max_tokens, bert.config.max_position_embeddings))
        return cls(bert, tokenizer, pooling=pooling)

    def forward(self, texts: Sequence[str], *, chunk_tokens: int) -> Tensor:
        """float32 (n_texts, dimension), rows of unit length, input order, on the model's device."""
        return in_chunks(self.tokenizer.encode_batch(list(texts)), chunk_tokens, self.bert.device, self._embedded)

    def _embedded(self, ids: Tensor, mask: Tensor, types: Tensor) -> Tensor:
        states = self.bert(input_ids=ids, attention_mask=mask, token_type_ids=types).last_hidden_state.float()
        if self._pooling == "cls":
            pooled = states[:, 0]
        else:
            weights = mask.unsqueeze(-1).float()
            pooled = (states * weights).sum(1) / weights.sum(1)
        return nn.functional.normalize(pooled, dim=-1)

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """The same as an array, without gradients."""
        if not texts:
            return np.zeros((0, self.bert.config.hidden_size), dtype=np.float32)
        with torch.inference_mode():
            embeddings: NDArray[np.float32] = self(texts, chunk_tokens=_READING_CHUNK_TOKENS).cpu().numpy()
        return embeddings

    def compare(self, queries: Sequence[str], passages: Sequence[str], *, chunk_tokens: int) -> tuple[Tensor, Tensor]:
        """See `BiEncoder`; vectors of unit length have no price."""
        embeddings = self([*queries, *passages], chunk_tokens=chunk_tokens)
        cosines = embeddings[: len(queries)] @ embeddings[len(queries) :].T
        return cosines * self.log_scale.float().exp(), torch.zeros((), device=cosines.device)

    def score(self, query: str, passages: Sequence[str]) -> NDArray[np.float32]:
        """The cosine of each passage to the query, float32 (n_passages,)."""
        embeddings = self.embed([query, *passages])
        cosines: NDArray[np.float32] = embeddings[1:] @ embeddings[0]
        return cosines


def encoder_from(base: Path, *, max_tokens: int, pooling: Pooling) -> SentenceEncoder:
    """An encoder to train, with the weights of `base`."""
    encoder = SentenceEncoder.of(base, max_tokens=max_tokens, pooling=pooling)
    freeze_embeddings(encoder.bert)
    return encoder


def mix_in(encoder: SentenceEncoder, base: SentenceEncoder, share: float) -> None:
    """Moves the weights of `encoder` back by `share` towards those of `base`, from which it was trained.

    Mostly keeps the gains of training and recovers losses on other kinds of text (Wortsman et al. 2022, "Robust
    fine-tuning of zero-shot models": https://arxiv.org/abs/2109.01903).
    """
    weights = dict(base.named_parameters())
    with torch.no_grad():
        for name, weight in encoder.named_parameters():
            weight.lerp_(weights[name].to(weight), share)


def embedder(base: Path, *, max_tokens: int, pooling: Pooling = "mean") -> Embed:
    """An encoder for mining, untrained."""
    encoder = SentenceEncoder.of(base, max_tokens=max_tokens, pooling=pooling)
    encoder.to(training_device(), PRECISION).eval()
    embed: Embed = encoder.embed
    return embed


class EmbeddingLoss:
    """The loss of batch `step`; depends only on step and seed."""

    def __init__(
        self,
        encoder: BiEncoder,
        candidates: CandidateSet,
        teaching: Teaching,
        settings: EmbeddingSettings,
        *,
        seed: int,
    ) -> None:
        self._encoder = encoder
        self._lists = candidates.lists
        self._passages = candidates.passages
        self._teaching = teaching
        self._settings = settings
        self._by_domain: dict[str, list[int]] = {}
        self._answered_by: dict[str, set[int]] = {}
        for number, found in enumerate(self._lists):
            self._answered_by.setdefault(found.query, set()).add(found.positive)
            judged, *mined = teaching.logits([number], found.rows)[0]
            if judged >= max(mined, default=judged) - settings.doubted_margin:
                self._by_domain.setdefault(candidates.passages[found.positive].domain, []).append(number)
        # Where too few were mined, any passage of the domain's lists is a negative.
        self._rows = {
            domain: sorted({row for number in numbers for row in self._lists[number].rows})
            for domain, numbers in self._by_domain.items()
        }
        self.n_lists = sum(map(len, self._by_domain.values()))
        """How many queries are trained on; see `doubted_margin`."""
        self.epochs = Epochs(self._shuffled, seed=seed)

    def __call__(self, step: int, progress: float) -> Tensor:
        generator = self.epochs.random(step)
        domain, numbers = self.epochs.batch(step)
        chosen = [self._choose(number, self._rows[domain], generator) for number in numbers]
        rows = list(dict.fromkeys(row for own in chosen for row in own))
        column = {row: place for place, row in enumerate(rows)}
        texts = [self._passages[row].text for row in rows]
        queries = [self._lists[number].query for number in numbers]
        logits, price = self._encoder.compare(queries, texts, chunk_tokens=self._settings.chunk_tokens)
        taught = torch.from_numpy(self._teaching.logits(numbers, rows)).to(logits.device)
        judged = torch.tensor([column[own[0]] for own in chosen], device=logits.device)
        answers = self._answers(numbers, rows, judged, taught)
        contrastive = nn.functional.cross_entropy(logits.masked_fill(answers, -torch.inf), judged)
        unknown = taught == UNKNOWN
        logits, taught = logits.masked_fill(unknown, _LEAST_LOGIT), taught.masked_fill(unknown, _LEAST_LOGIT)
        distilled = _SHARE_OF_QUERIES * _divergence(logits, taught) + (1.0 - _SHARE_OF_QUERIES) * _divergence(
            logits.T, taught.T
        )
        share = self._teaching.share
        return (1.0 - share) * contrastive + share * distilled + min(1.0, progress / _FULL_PRICE_AT) ** 2 * price

    def _shuffled(self, generator: random.Random) -> list[tuple[str, list[int]]]:
        """Batches of one domain each, because style alone separates passages of two domains; the last batch of a
        domain may be smaller."""
        size = self._settings.lists_per_step
        batches = []
        for domain, numbers in self._by_domain.items():
            mixed = generator.sample(numbers, len(numbers))
            batches += [(domain, mixed[start : start + size]) for start in range(0, len(mixed), size)]
        generator.shuffle(batches)
        return batches

    def _choose(self, number: int, domain: Sequence[int], generator: random.Random) -> list[int]:
        found = self._lists[number]
        mined = [row for row in dict.fromkeys(found.rows) if row != found.positive]
        chosen = generator.sample(mined, min(self._settings.negatives, len(mined)))
        while len(chosen) < self._settings.negatives:
            if (row := generator.choice(domain)) != found.positive:
                chosen.append(row)
        return [found.positive, *chosen]

    def _answers(self, numbers: Sequence[int], rows: Sequence[int], judged: Tensor, taught: Tensor) -> Tensor:
        """bool (n_queries, n_passages): passages that are or may be answers, and so are not negatives.

        `judged`: the column of each query's own passage.
        """
        own = judged.unsqueeze(1)
        answers = taught >= taught.gather(1, own) + self._settings.trusted_margin
        also = [[row in self._answered_by[self._lists[number].query] for row in rows] for number in numbers]
        return (answers | torch.tensor(also, device=taught.device)).scatter(1, own, False)


def _divergence(logits: Tensor, taught: Tensor) -> Tensor:
    """Kullback–Leibler divergence of the student's rows from the teachers'."""
    return nn.functional.kl_div(logits.log_softmax(dim=1), taught.softmax(dim=1), reduction="batchmean")
