"""Exports a monoT5 as a cross-encoder (Nogueira et al. 2020, "Document ranking with a pretrained sequence-to-sequence
model": https://arxiv.org/abs/2003.06713).

The model answers a prompt of query and passage by "true" or "false". That needs one step of the decoder and two rows of
the vocabulary, so the graph is the encoder, one decoder step and one product, and runs like any cross-encoder. Its
logit is that of "true" minus that of "false"; the logistic function of it is the paper's probability of "true".
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import T5ForConditionalGeneration

from bridge.errors import ModelError
from bridge.models.artifact import TOKENIZER, ModelFolder
from bridge.models.session import Session
from bridge.models.tokenization import INPUT_NAMES, load_tokenizer
from bridge.training.transformers_folder import (
    MAX_DIFFERENCE,
    MODEL_FILE,
    PARITY_TEXTS,
    Card,
    differs,
    quiet,
    trace,
    write_model,
)

PROMPT = ("Query:", "Document:", "Relevant:")
"""The texts before the query, between query and passage, and after the passage."""

ANSWERS = ("true", "false")

ARCHITECTURE = "T5ForConditionalGeneration"


class AnswerScore(nn.Module):  # type: ignore[misc]  # torch is untyped here
    """Prompts, int64 (n_prompts, n_tokens) → logits of "true" minus "false", float32 (n_prompts, 1)."""

    def __init__(self, model: T5ForConditionalGeneration, *, true_id: int, false_id: int) -> None:
        """Takes the model's encoder, its decoder and two rows of its vocabulary."""
        super().__init__()
        self.encoder, self.decoder = model.encoder, model.decoder
        output = model.lm_head.weight.detach()
        scale = model.model_dim**-0.5 if model.config.tie_word_embeddings else 1.0
        self.answers = nn.Parameter((output[true_id] - output[false_id])[:, None] * scale)
        # As an embedding: the graph then looks up words in one place, where quantisation expects them.
        start = model.shared.weight.detach()[model.config.decoder_start_token_id]
        self.start = nn.Parameter(start[None, None])

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """One step of the decoder."""
        states = self.encoder(input_ids=input_ids, attention_mask=attention_mask, return_dict=False)[0]
        answer = self.decoder(
            inputs_embeds=self.start.expand(input_ids.shape[0], 1, -1),
            encoder_hidden_states=states,
            encoder_attention_mask=attention_mask,
            use_cache=False,
            return_dict=False,
        )[0]
        return answer[:, 0] @ self.answers


def export_mono_t5(source: Path, out: Path, card: Card) -> ModelFolder:
    """Exports a monoT5 in transformers' layout, its configuration checked, to `out`: logits, float32 (n_pairs, 1).

    Raises:
        ModelError: its vocabulary lacks the answers, or the graph disagrees with torch.
    """
    tokenizer = Tokenizer.from_file(str(source / TOKENIZER))
    true_id, false_id = (_only_id(tokenizer, answer, source) for answer in ANSWERS)
    model = T5ForConditionalGeneration.from_pretrained(
        source, dtype=torch.float32, use_safetensors=True, local_files_only=True
    ).eval()
    out.mkdir(parents=True, exist_ok=True)
    with quiet():
        trace(
            AnswerScore(model, true_id=true_id, false_id=false_id).eval(),
            out / MODEL_FILE,
            inputs=["input_ids", "attention_mask"],
            output="logits",
        )
    folder = write_model(source, out, card, "cross_encoder", [MODEL_FILE], prompt=list(PROMPT))
    _check_parity(model, tokenizer, folder, true_id=true_id, false_id=false_id)
    return folder


def prompt_of(query: str, passage: str) -> str:
    """The prompt in the authors' format."""
    before, between, after = PROMPT
    return f"{before} {query} {between} {passage} {after}"


def _only_id(tokenizer: Tokenizer, answer: str, source: Path) -> int:
    ids: list[int] = tokenizer.encode(answer, add_special_tokens=False).ids
    if len(ids) != 1 or ids[0] == tokenizer.encode("\ue000", add_special_tokens=False).ids[-1]:
        raise ModelError(f"model {source} has no token {answer!r}: this is no monoT5, name another kind")
    return ids[0]


def _check_parity(
    model: T5ForConditionalGeneration, tokenizer: Tokenizer, folder: ModelFolder, *, true_id: int, false_id: int
) -> None:
    """Compares the exported folder with the original model, which reads each prompt as one text."""
    session = Session(folder.model_file, inputs=INPUT_NAMES)
    in_folder = load_tokenizer(folder)
    start = torch.tensor([[model.config.decoder_start_token_id]])
    for query, passage in PARITY_TEXTS:
        ids: list[int] = tokenizer.encode(prompt_of(query, passage)).ids
        if len(ids) > folder.manifest.max_tokens:
            continue  # of which the folder cuts the passage, and not the prompt's end
        with torch.inference_mode():
            logits: Any = model(input_ids=torch.tensor([ids]), decoder_input_ids=start).logits[0, 0]
        expected = float(logits[true_id] - logits[false_id])
        found = float(session.run(in_folder.pairs(query, [passage])[0]).reshape(-1)[0])
        if not np.isclose(found, expected, rtol=MAX_DIFFERENCE, atol=MAX_DIFFERENCE):
            raise differs(folder, abs(found - expected))
