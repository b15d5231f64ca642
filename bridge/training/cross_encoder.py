"""Trains a cross-encoder: query and passage in, one relevance logit out.

Loss: listwise softmax over one judged passage and sampled negatives (Cao et al. 2007, ListNet's top-one form), mixed
with the teachers' distribution over the same list (Hinton et al. 2015) and a little pointwise cross-entropy. The last
term makes 0 mean "as likely as not", so a threshold on the logit means the same for every query.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import BertConfig, BertForSequenceClassification, BertModel

from bridge.training.base_model import BASE_OPTIONS, NO_DROPOUT, freeze_embeddings, in_chunks
from bridge.training.batches import Epochs, best_window, rarity
from bridge.training.mining import CandidateList, CandidateSet
from bridge.training.teachers import TeacherLogits

Pair = tuple[str, str]
"""A query and a passage."""

_WHOLE_TOKENS = 192
"""Of query and passage, of which most passages are whole; 256 cost half as much again."""

_HEAD_WIDTH = 64
_WORD_DEVIATION = 0.05

# What the teachers have not scored: a random passage of the domain is worse than all that was mined, and a
# passage is no answer to a question that was written to fool.
_BELOW_MINED, _BELOW_JUDGED = 2.0, 4.0


@dataclass(frozen=True, slots=True)
class RankingSettings:
    """Settings of a batch.

    `lists_per_step` candidate lists of one relevant passage and `negatives` others. A step's pairs are sorted by length
    and cut into chunks of at most `chunk_tokens` padded tokens, which limits padding and memory. Passages are cut to
    windows of `window_words` words (lowest, highest), but `whole_share` of the lists only to `max_tokens`. A mined
    passage whose teacher logit exceeds the judged one's by `trusted_margin` is probably an answer and is not used as a
    negative.
    """

    lists_per_step: int = 16
    negatives: int = 7
    max_tokens: int = 256
    chunk_tokens: int = 2560
    window_words: tuple[int, int] = (28, 100)
    whole_share: float = 0.25
    teacher_share: float = 0.45
    pointwise_share: float = 0.1
    trusted_margin: float = 2.0

    def of_whole_passages(self) -> "RankingSettings":
        """Longer lists of whole passages: the reranker reads what it will read when it serves. Each pair costs two to
        four times as much, so this is for runs of days that start from a trained reranker."""
        return replace(
            self, whole_share=1.0, max_tokens=min(_WHOLE_TOKENS, self.max_tokens), negatives=15, lists_per_step=8
        )


def cross_encoder_from(base: Path, *, n_frozen_layers: int = 0) -> BertForSequenceClassification:
    """A cross-encoder with the weights of a BERT encoder, and with a new head if the encoder has none."""
    model = BertForSequenceClassification.from_pretrained(base, num_labels=1, **BASE_OPTIONS)
    freeze_embeddings(model.bert)
    for layer in model.bert.encoder.layer[:n_frozen_layers]:
        layer.requires_grad_(False)
    return model


def small_cross_encoder_from(base: Path, *, n_layers: int, width: int) -> BertForSequenceClassification:
    """A cross-encoder with the word table of `base` and untrained layers; `width` is at most the base's.

    The word table is projected onto the `width` directions of its largest variance. From there a small model needs
    thousands of steps to learn that query words matter if the passage contains them too. So the first layer starts as a
    word matcher: each token attends to equal tokens in both segments, and the value it reads encodes their segment.
    """
    table = BertModel.from_pretrained(base, dtype=torch.float32, use_safetensors=True).embeddings.word_embeddings.weight
    width = min(width, table.shape[1])
    configuration = BertConfig(
        vocab_size=table.shape[0],
        hidden_size=width,
        num_hidden_layers=n_layers,
        num_attention_heads=max(1, width // _HEAD_WIDTH),
        intermediate_size=4 * width,
        num_labels=1,
        **NO_DROPOUT,
    )
    configuration._attn_implementation = "eager"
    model = BertForSequenceClassification(configuration)
    with torch.no_grad():
        centred = table - table.mean(dim=0)
        _, _, directions = torch.linalg.svd(centred, full_matrices=False)
        words = centred @ directions[:width].T
        words *= _WORD_DEVIATION / words.std()
        _match_words(model, words)
    return model


def _match_words(model: BertForSequenceClassification, words: Tensor) -> None:
    """Writes the word table, and the word matcher into the first layer."""
    embeddings = model.bert.embeddings
    embeddings.word_embeddings.weight.copy_(words)
    embeddings.position_embeddings.weight.mul_(0.1)
    # The two segments stand on two sides of one direction, which the matching does not see.
    direction = nn.functional.normalize(embeddings.token_type_embeddings.weight[0], dim=0)
    side = direction * _WORD_DEVIATION * words.shape[1] ** 0.5
    embeddings.token_type_embeddings.weight.copy_(torch.stack([side, -side]))
    attention = model.bert.encoder.layer[0].attention.self
    identity = torch.eye(words.shape[1])
    for projection in (attention.query, attention.key):
        projection.weight.copy_(identity - torch.outer(direction, direction))
    attention.value.weight.copy_(identity)
    model.bert.encoder.layer[0].attention.output.dense.weight.copy_(identity)


def score_pairs(model: nn.Module, tokenizer: Tokenizer, pairs: Sequence[Pair], *, chunk_tokens: int) -> Tensor:
    """float32 (n_pairs,): one logit per pair, in input order, on the model's device."""

    def logits(ids: Tensor, mask: Tensor, types: Tensor) -> Tensor:
        return model(input_ids=ids, attention_mask=mask, token_type_ids=types).logits.float().squeeze(-1)

    device = next(model.parameters()).device
    return in_chunks(tokenizer.encode_batch(list(pairs)), chunk_tokens, device, logits)


def scorer(
    model: nn.Module, tokenizer: Tokenizer, *, chunk_tokens: int = 8192
) -> Callable[[str, Sequence[str]], NDArray[np.float32]]:
    """The model as a function: query, passages → float32 (n_passages,), input order."""

    def score(query: str, passages: Sequence[str]) -> NDArray[np.float32]:
        pairs = [(query, passage) for passage in passages]
        with torch.inference_mode():
            logits = score_pairs(model, tokenizer, pairs, chunk_tokens=chunk_tokens)
        scores: NDArray[np.float32] = logits.cpu().numpy()
        return scores

    return score


class RankingLoss:
    """The loss of batch `step`; depends only on step and seed."""

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Tokenizer,
        candidates: CandidateSet,
        teachers: TeacherLogits,
        settings: RankingSettings,
        *,
        seed: int,
    ) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._passages = candidates.passages
        self._settings = settings
        self._weights = rarity(passage.text for passage in candidates.passages)
        self._domains: dict[str, list[int]] = {}
        for row, passage in enumerate(candidates.passages):
            self._domains.setdefault(passage.domain, []).append(row)
        lists, size = list(zip(candidates.lists, teachers, strict=True)), settings.lists_per_step

        def shuffled(generator: random.Random) -> list[list[tuple[CandidateList, list[float]]]]:
            """A last incomplete batch is left out."""
            order = list(range(len(lists)))
            generator.shuffle(order)
            return [[lists[row] for row in order[end - size : end]] for end in range(size, len(order) + 1, size)]

        self.epochs = Epochs(shuffled, seed=seed)

    def __call__(self, step: int, progress: float) -> Tensor:
        settings = self._settings
        generator = self.epochs.random(step)
        pairs: list[Pair] = []
        teachers: list[list[float]] = []
        for candidate_list, known in self.epochs.batch(step):
            list_pairs, list_logits = self._sample(
                candidate_list, dict(zip(candidate_list.rows, known, strict=True)), generator, progress
            )
            pairs.extend(list_pairs)
            teachers.append(list_logits)
        logits = score_pairs(self._model, self._tokenizer, pairs, chunk_tokens=settings.chunk_tokens)
        logits = logits.view(len(teachers), 1 + settings.negatives)
        log_likelihood = logits.log_softmax(dim=-1)
        listwise = -log_likelihood[:, 0].mean()
        taught = torch.tensor(teachers, device=logits.device).softmax(dim=-1)
        distilled = nn.functional.kl_div(log_likelihood, taught, reduction="batchmean")
        labels = torch.zeros_like(logits)
        labels[:, 0] = 1.0
        pointwise = nn.functional.binary_cross_entropy_with_logits(logits, labels)
        share = settings.teacher_share
        return (1.0 - share) * listwise + share * distilled + settings.pointwise_share * pointwise

    def _sample(
        self, candidates: CandidateList, known: Mapping[int, float], generator: random.Random, progress: float
    ) -> tuple[list[Pair], list[float]]:
        """The pairs of one list, the relevant one first, and the teachers' logit of each."""
        settings = self._settings
        chosen = self._choose_negatives(candidates, known, generator, progress)
        query = _vary_query(candidates.query, generator)
        pairs = [(query, row) for row in (candidates.positive, *chosen)]
        unmined = min(known.values()) - _BELOW_MINED
        logits = [known.get(row, unmined) for _, row in pairs]
        if candidates.rivals and generator.random() < 0.7:
            pairs[-1] = (generator.choice(candidates.rivals), candidates.positive)
            logits[-1] = known[candidates.positive] - _BELOW_JUDGED
        whole = generator.random() < settings.whole_share
        titled = generator.random() < 0.4
        n_words = generator.randint(*settings.window_words)
        texts: list[Pair] = []
        for asked, row in pairs:
            passage = self._passages[row]
            text = passage.text if whole else best_window(asked, passage.text, n_words, self._weights)
            texts.append((asked, f"{passage.title}. {text}" if titled and passage.title else text))
        return texts, logits

    def _choose_negatives(
        self, candidates: CandidateList, known: Mapping[int, float], generator: random.Random, progress: float
    ) -> list[int]:
        """Hard negatives, and random ones of the domain: many at first, few later (a curriculum as in Zeng et al.
        2022, CL-DRD)."""
        limit = known[candidates.positive] + self._settings.trusted_margin
        lexical = [row for row in candidates.lexical if known[row] < limit]
        dense = [row for row in candidates.dense if known[row] < limit]
        n_random = 3 if progress < 0.1 else 1 + generator.randint(0, 1)
        n_hard = self._settings.negatives - n_random
        n_lexical = (n_hard + generator.randint(0, 1)) // 2
        chosen = generator.sample(lexical, min(n_lexical, len(lexical)))
        dense = [row for row in dense if row not in chosen]
        chosen += generator.sample(dense, min(n_hard - len(chosen), len(dense)))
        domain = self._domains[self._passages[candidates.positive].domain]
        avoided = {candidates.positive, *chosen}
        while len(chosen) < self._settings.negatives:
            row = generator.choice(domain)
            if row != candidates.positive and (row not in avoided or len(domain) <= len(avoided)):
                chosen.append(row)
                avoided.add(row)
        return chosen


def _vary_query(query: str, generator: random.Random) -> str:
    """Sometimes drops the question mark, which users often leave out."""
    return query.rstrip("? ") if generator.random() < 0.4 else query
