"""Trains a query generator: a passage in, queries that it answers out (Nogueira et al. 2019, doc2query).

The shape is BART's, which both CTranslate2 and ONNX exporters support. The encoder has BERT's weights, so nothing of
its training is lost; BERT's position offset and segment embedding are added into BART's position table.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import BartConfig, BartForConditionalGeneration, BertModel, PreTrainedTokenizerFast
from transformers.models.bart.modeling_bart import BartDecoderLayer, BartEncoderLayer
from transformers.models.bert.modeling_bert import BertLayer

from bridge.training.base_model import base_tokenizer
from bridge.training.batches import Epochs, best_window, rarity
from bridge.training.data import LabelledPair

# BART keeps two rows of its position table unused.
_POSITION_OFFSET = 2
_PAD, _START, _END, _UNKNOWN = "[PAD]", "[CLS]", "[SEP]", "[UNK]"


@dataclass(frozen=True, slots=True)
class GenerationSettings:
    """Settings of a batch: `pairs_per_step` of similar length, passages cut to `max_passage_tokens`, queries to
    `max_query_tokens`. All passages but `whole_share` are first cut to windows of `window_words` words (lowest,
    highest)."""

    pairs_per_step: int = 48
    max_passage_tokens: int = 160
    window_words: tuple[int, int] = (40, 90)
    whole_share: float = 0.15
    max_query_tokens: int = 28


def query_generator_from(
    base: Path, *, n_encoder_layers: int, n_decoder_layers: int, n_frozen_layers: int
) -> BartForConditionalGeneration:
    """An encoder-decoder with the first layers of a BERT encoder. The decoder starts as the last of those layers, its
    cross-attention as their self-attention.

    The vocabulary table (tied to the output) and the first `n_frozen_layers` encoder layers are frozen.
    """
    bert = BertModel.from_pretrained(base, dtype=torch.float32, use_safetensors=True, add_pooling_layer=False)
    tokenizer = base_tokenizer(base)
    shape = bert.config
    config = BartConfig(
        vocab_size=shape.vocab_size,
        d_model=shape.hidden_size,
        encoder_layers=n_encoder_layers,
        decoder_layers=n_decoder_layers,
        encoder_attention_heads=shape.num_attention_heads,
        decoder_attention_heads=shape.num_attention_heads,
        encoder_ffn_dim=shape.intermediate_size,
        decoder_ffn_dim=shape.intermediate_size,
        activation_function=shape.hidden_act,
        max_position_embeddings=shape.max_position_embeddings,
        dropout=0.0,
        attention_dropout=0.0,
        activation_dropout=0.0,
        scale_embedding=False,
        normalize_before=False,  # asked for by CTranslate2's converter
        pad_token_id=tokenizer.token_to_id(_PAD),
        bos_token_id=tokenizer.token_to_id(_START),
        decoder_start_token_id=tokenizer.token_to_id(_START),
        eos_token_id=tokenizer.token_to_id(_END),
        forced_bos_token_id=None,
        forced_eos_token_id=None,
    )
    config._attn_implementation = "eager"
    model = BartForConditionalGeneration(config)
    with torch.no_grad():
        _copy_embeddings(bert, model)
        for number in range(n_encoder_layers):
            _copy_layer(bert.encoder.layer[number], model.model.encoder.layers[number])
        for number in range(n_decoder_layers):
            taught = bert.encoder.layer[n_encoder_layers - n_decoder_layers + number]
            layer = model.model.decoder.layers[number]
            _copy_layer(taught, layer)
            _copy_attention(taught, layer.encoder_attn)
            _hand_through(layer.encoder_attn)
            layer.encoder_attn_layer_norm.load_state_dict(taught.attention.output.LayerNorm.state_dict())
    model.model.shared.requires_grad_(False)
    for frozen in (
        model.model.encoder.embed_positions,
        model.model.encoder.layernorm_embedding,
        *model.model.encoder.layers[:n_frozen_layers],
    ):
        frozen.requires_grad_(False)
    return model


def _copy_embeddings(bert: BertModel, model: BartForConditionalGeneration) -> None:
    tables = bert.embeddings
    model.model.shared.weight.copy_(tables.word_embeddings.weight)
    positions = tables.position_embeddings.weight + tables.token_type_embeddings.weight[0]
    for half in (model.model.encoder, model.model.decoder):
        half.embed_positions.weight[:_POSITION_OFFSET] = 0.0
        half.embed_positions.weight[_POSITION_OFFSET:] = positions
        half.layernorm_embedding.load_state_dict(tables.LayerNorm.state_dict())


def _copy_layer(taught: BertLayer, layer: BartEncoderLayer | BartDecoderLayer) -> None:
    _copy_attention(taught, layer.self_attn)
    layer.self_attn_layer_norm.load_state_dict(taught.attention.output.LayerNorm.state_dict())
    layer.fc1.load_state_dict(taught.intermediate.dense.state_dict())
    layer.fc2.load_state_dict(taught.output.dense.state_dict())
    layer.final_layer_norm.load_state_dict(taught.output.LayerNorm.state_dict())


def _copy_attention(taught: BertLayer, attention: nn.Module) -> None:
    attention.q_proj.load_state_dict(taught.attention.self.query.state_dict())
    attention.k_proj.load_state_dict(taught.attention.self.key.state_dict())
    attention.v_proj.load_state_dict(taught.attention.self.value.state_dict())
    attention.out_proj.load_state_dict(taught.attention.output.dense.state_dict())


def _hand_through(attention: nn.Module) -> None:
    """Makes untrained cross-attention copy the tokens that it attends to, because most words of a query are in the
    passage.

    A lower layer's state of a token is still closest to the token's own row of the vocabulary table. With the identity
    as value and output projection the decoder therefore copies, and has to learn only where to attend.
    """
    for projection in (attention.v_proj, attention.out_proj):
        nn.init.eye_(projection.weight)
        nn.init.zeros_(projection.bias)


def save_query_generator(model: BartForConditionalGeneration, base: Path, folder: Path) -> None:
    """Writes a transformers folder that converters read: weights, configuration, tokenizer."""
    model.save_pretrained(folder)
    PreTrainedTokenizerFast(
        tokenizer_file=str(base / "tokenizer.json"),
        pad_token=_PAD,
        bos_token=_START,
        cls_token=_START,
        eos_token=_END,
        sep_token=_END,
        unk_token=_UNKNOWN,
    ).save_pretrained(folder)


class GenerationLoss:
    """Cross-entropy of the query's tokens, given the passage; depends only on step and seed.

    Some passages start with their title, as in an index, unless the query repeats the title.
    """

    def __init__(
        self,
        model: BartForConditionalGeneration,
        tokenizer: Tokenizer,
        pairs: Sequence[LabelledPair],
        settings: GenerationSettings,
        *,
        seed: int,
    ) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._pairs = [pair for pair in pairs if pair.relevant]
        self._settings = settings
        self._weights = rarity(pair.passage for pair in self._pairs)
        self.epochs = Epochs(self._shuffled, seed=seed)

    def __call__(self, step: int, progress: float) -> Tensor:
        del progress
        generator = self.epochs.random(step)
        batch = self.epochs.batch(step)
        passages = self._ids([self._passage_text(pair, generator) for pair in batch], self._settings.max_passage_tokens)
        queries = self._ids([pair.query for pair in batch], self._settings.max_query_tokens)
        device = self._model.device
        config = self._model.config
        ids = _padded(passages, config.pad_token_id).to(device)
        written = _padded(queries, config.pad_token_id).to(device)
        expected = written[:, 1:]
        counted = expected != config.pad_token_id
        states = self._model.model(
            input_ids=ids,
            attention_mask=(ids != config.pad_token_id).long(),
            decoder_input_ids=written[:, :-1],
            use_cache=False,
        ).last_hidden_state
        # Half of the positions are padding, and each costs a row as wide as the vocabulary.
        logits = self._model.lm_head(states[counted])
        return nn.functional.cross_entropy(logits.float(), expected[counted])

    def _passage_text(self, pair: LabelledPair, generator: random.Random) -> str:
        whole = generator.random() < self._settings.whole_share
        n_words = generator.randint(*self._settings.window_words)
        passage = pair.passage if whole else best_window(pair.query, pair.passage, n_words, self._weights)
        told = pair.title and pair.title.lower() not in pair.query.lower()
        return f"{pair.title}. {passage}" if told and generator.random() < 0.3 else passage

    def _ids(self, texts: list[str], max_tokens: int) -> list[list[int]]:
        encodings = self._tokenizer.encode_batch(texts)
        return [[*e.ids[: max_tokens - 1], e.ids[-1]] if len(e.ids) > max_tokens else e.ids for e in encodings]

    def _shuffled(self, generator: random.Random) -> list[list[LabelledPair]]:
        """Batches of similar length: pairs are shuffled, sorted within stretches of 50 batches, and cut; then the
        batches are shuffled."""
        size = self._settings.pairs_per_step
        stretch = 50 * size
        mixed = list(self._pairs)
        generator.shuffle(mixed)
        ordered = [
            pair
            for start in range(0, len(mixed), stretch)
            for pair in sorted(mixed[start : start + stretch], key=lambda pair: len(pair.passage))
        ]
        batches = [ordered[start : start + size] for start in range(0, len(ordered), size)]
        generator.shuffle(batches)
        return batches


def _padded(rows: list[list[int]], pad: int) -> Tensor:
    width = max(map(len, rows))
    return torch.tensor([row + [pad] * (width - len(row)) for row in rows])
