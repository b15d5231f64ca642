"""Train a bi-encoder: a query comes to lie nearer to the passage that answers it than to all others.

Loss: softmax over all passages of the batch (Henderson et al. 2017, "Efficient natural language response
suggestion"; Karpukhin et al. 2020, DPR), mined negatives among them, and a share of what the teachers think of the
query's own list, since predicted queries and single judgements leave answers unmarked (Wang et al. 2022, "GPL:
Generative pseudo labeling for unsupervised domain adaptation of dense retrieval": https://arxiv.org/abs/2112.07577;
here the teachers' distribution instead of their margins, so that their scale does not matter).
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import BertModel

from bridge.training.device import PRECISION, training_device
from bridge.training.mining import CandidateList, CandidateSet, Embed
from bridge.training.padding import padded_chunks
from bridge.training.teachers import TeacherLogits

Pooling = Literal["mean", "cls"]

_Known = tuple[CandidateList, Mapping[int, float]]
"""A query with its candidates, and the teachers' logit of each candidate."""

_READING_CHUNK_TOKENS = 8192


@dataclass(frozen=True, slots=True)
class EmbeddingSettings:
    """What one batch holds.

    `lists_per_step` queries of one domain, each with its passage and `negatives` mined ones; every passage of the
    batch is a negative of all other queries. `scale` multiplies cosines before the softmax. A mined passage whose
    teachers' logit is above the judged one's by `trusted_margin` is probably an answer, and no negative; a query
    whose judged passage is below any of its mined ones by `doubted_margin` is probably not answered by it, and is
    left out (a round trip, as in Alberti et al. 2019 and Dai et al. 2022).
    """

    lists_per_step: int = 32
    negatives: int = 1
    max_tokens: int = 128
    chunk_tokens: int = 4096
    scale: float = 20.0
    teacher_share: float = 0.4
    trusted_margin: float = 2.0
    doubted_margin: float = 3.0
    titled_share: float = 0.5


class SentenceEncoder(nn.Module):  # type: ignore[misc]  # torch is untyped here
    """A BERT whose token states become one vector of unit length. `tokenizer` neither pads nor has a limit of its
    own beyond `max_tokens`."""

    def __init__(self, bert: BertModel, tokenizer: Tokenizer, *, pooling: Pooling = "mean") -> None:
        super().__init__()
        self.bert = bert
        self.tokenizer = tokenizer
        self._pooling = pooling

    @classmethod
    def of(cls, folder: Path, *, max_tokens: int, pooling: Pooling = "mean") -> "SentenceEncoder":
        """Opens a transformers folder with `tokenizer.json`; dropout is off (see `cross_encoder_from`)."""
        bert = BertModel.from_pretrained(
            folder,
            dtype=torch.float32,
            use_safetensors=True,
            add_pooling_layer=False,
            # On CPU the fused kernel's backward pass is slower than plain matrix products.
            attn_implementation="eager",
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
        )
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        tokenizer.no_padding()
        tokenizer.enable_truncation(min(max_tokens, bert.config.max_position_embeddings))
        return cls(bert, tokenizer, pooling=pooling)

    def forward(self, texts: Sequence[str], *, chunk_tokens: int) -> Tensor:
        """float32 (n_texts, dimension), rows of unit length, input order, on the model's device."""
        device = self.bert.device
        order: list[int] = []
        embeddings: list[Tensor] = []
        for rows, inputs in padded_chunks(self.tokenizer.encode_batch(list(texts)), chunk_tokens):
            ids, mask, types = torch.from_numpy(inputs).to(device)
            states = self.bert(input_ids=ids, attention_mask=mask, token_type_ids=types).last_hidden_state.float()
            if self._pooling == "cls":
                pooled = states[:, 0]
            else:
                weights = mask.unsqueeze(-1).float()
                pooled = (states * weights).sum(1) / weights.sum(1)
            order += rows
            embeddings.append(nn.functional.normalize(pooled, dim=-1))
        places = torch.empty(len(order), dtype=torch.long, device=device)
        places[torch.tensor(order, device=device)] = torch.arange(len(order), device=device)
        return torch.cat(embeddings)[places]

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """The same as an array, without gradients."""
        if not texts:
            return np.zeros((0, self.bert.config.hidden_size), dtype=np.float32)
        with torch.inference_mode():
            embeddings: NDArray[np.float32] = self(texts, chunk_tokens=_READING_CHUNK_TOKENS).cpu().numpy()
        return embeddings

    def score(self, query: str, passages: Sequence[str]) -> NDArray[np.float32]:
        """The cosine of each passage to the query, float32 (n_passages,)."""
        embeddings = self.embed([query, *passages])
        cosines: NDArray[np.float32] = embeddings[1:] @ embeddings[0]
        return cosines


def encoder_from(base: Path, *, max_tokens: int, pooling: Pooling) -> SentenceEncoder:
    """An encoder to train: word and position embeddings keep still."""
    encoder = SentenceEncoder.of(base, max_tokens=max_tokens, pooling=pooling)
    encoder.bert.embeddings.word_embeddings.requires_grad_(False)
    encoder.bert.embeddings.position_embeddings.requires_grad_(False)
    return encoder


def embedder(base: Path, *, max_tokens: int, pooling: Pooling = "mean") -> Embed:
    """An encoder to mine with, as it is."""
    encoder = SentenceEncoder.of(base, max_tokens=max_tokens, pooling=pooling)
    encoder.to(training_device(), PRECISION).eval()
    embed: Embed = encoder.embed
    return embed


class EmbeddingLoss:
    """The loss of batch `step`, a function of the step and the seed alone."""

    def __init__(
        self,
        encoder: SentenceEncoder,
        candidates: CandidateSet,
        teachers: TeacherLogits,
        settings: EmbeddingSettings,
        *,
        seed: int,
    ) -> None:
        self._encoder = encoder
        self._passages = candidates.passages
        self._settings = settings
        self._seed = seed
        self._by_domain: dict[str, list[_Known]] = {}
        self._answered_by: dict[str, set[int]] = {}
        for candidate_list, logits in zip(candidates.lists, teachers, strict=True):
            known = dict(zip(candidate_list.rows, logits, strict=True))
            self._answered_by.setdefault(candidate_list.query, set()).add(candidate_list.positive)
            if known[candidate_list.positive] >= max(known.values()) - settings.doubted_margin:
                domain = candidates.passages[candidate_list.positive].domain
                self._by_domain.setdefault(domain, []).append((candidate_list, known))
        self._rows = {domain: sorted({row for _, k in lists for row in k}) for domain, lists in self._by_domain.items()}
        self._epoch = -1
        self._order: list[tuple[str, list[int]]] = []

    @property
    def n_lists(self) -> int:
        """How many queries are trained on; see `doubted_margin`."""
        return sum(map(len, self._by_domain.values()))

    @property
    def steps_per_epoch(self) -> int:
        """Steps in which every query is seen once; the last one of a domain may be a small one."""
        return sum(-(-len(lists) // self._settings.lists_per_step) for lists in self._by_domain.values())

    def __call__(self, step: int, progress: float) -> Tensor:
        settings = self._settings
        generator = random.Random(f"{self._seed}:{step}")
        domain, places = self._batch_of(step)
        lists = [self._by_domain[domain][place] for place in places]
        chosen = [self._choose(found, known, self._rows[domain], generator) for found, known in lists]
        rows = list(dict.fromkeys(row for own in chosen for row in own))
        column = {row: number for number, row in enumerate(rows)}
        texts = [self._text(row, generator) for row in rows]
        embeddings = self._encoder([found.query for found, _ in lists] + texts, chunk_tokens=settings.chunk_tokens)
        logits = settings.scale * embeddings[: len(lists)] @ embeddings[len(lists) :].T
        own = torch.tensor([[column[row] for row in each] for each in chosen], device=logits.device)
        contrastive = nn.functional.cross_entropy(logits.masked_fill(self._answers(lists, rows), -torch.inf), own[:, 0])
        thought = [
            [known.get(row, min(known.values())) for row in each]
            for (_, known), each in zip(lists, chosen, strict=True)
        ]
        taught = torch.tensor(thought, device=logits.device)
        listwise = logits.gather(1, own).log_softmax(dim=1)
        distilled = nn.functional.kl_div(listwise, taught.softmax(dim=1), reduction="batchmean")
        share = settings.teacher_share
        return (1.0 - share) * contrastive + share * distilled

    def _batch_of(self, step: int) -> tuple[str, list[int]]:
        """Batches of one domain each: passages of another one are told apart by their style."""
        epoch, place = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            generator = random.Random(f"{self._seed}:epoch:{epoch}")
            size = self._settings.lists_per_step
            self._order = []
            for domain, lists in self._by_domain.items():
                places = generator.sample(range(len(lists)), len(lists))
                self._order += [(domain, places[start : start + size]) for start in range(0, len(places), size)]
            generator.shuffle(self._order)
            self._epoch = epoch
        return self._order[place]

    def _choose(
        self, found: CandidateList, known: Mapping[int, float], domain: Sequence[int], generator: random.Random
    ) -> list[int]:
        """The judged passage, then negatives; random ones of the domain where too few were mined."""
        limit = known[found.positive] + self._settings.trusted_margin
        mined = [row for row in dict.fromkeys(found.rows) if row != found.positive and known[row] < limit]
        chosen = generator.sample(mined, min(self._settings.negatives, len(mined)))
        while len(chosen) < self._settings.negatives:
            if (row := generator.choice(domain)) != found.positive:
                chosen.append(row)
        return [found.positive, *chosen]

    def _text(self, row: int, generator: random.Random) -> str:
        passage = self._passages[row]
        titled = passage.title and generator.random() < self._settings.titled_share
        return f"{passage.title}. {passage.text}" if titled else passage.text

    def _answers(self, lists: Sequence[_Known], rows: Sequence[int]) -> Tensor:
        """bool (n_queries, n_passages): passages that are, or may be, answers too, and so no negatives."""
        answers = []
        for found, known in lists:
            judged = self._answered_by[found.query]
            limit = known[found.positive] + self._settings.trusted_margin
            likely = {row for row, logit in known.items() if logit >= limit} | judged
            answers.append([row != found.positive and row in likely for row in rows])
        return torch.tensor(answers, device=self._encoder.bert.device)
