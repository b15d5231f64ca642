"""Exports a sparse encoder (a masked language model trained as SPLADE) to a model folder with float32 weights."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from transformers import AutoModelForMaskedLM

from bridge.errors import ModelError
from bridge.models.artifact import IDF, TOKENIZER, ModelFolder
from bridge.models.session import Session
from bridge.models.sparse_encoder import MOST_TERMS, is_term
from bridge.models.tokenization import INPUT_NAMES, TextTokenizer
from bridge.training.export import FORWARD_ORDER, keep_positions, load_transformer, with_fused_attention
from bridge.training.output_layer import append_output_layer
from bridge.training.transformers_folder import (
    MAX_DIFFERENCE,
    MODEL_FILE,
    PARITY_TEXTS,
    Card,
    checked_configuration,
    differs,
    quiet,
    trace,
    write_model,
)

_ARCHITECTURE = "BertForMaskedLM"
_STATES = "token_states"
_NEVER = -1e9
"""The bias of a word piece that is never a term."""


class _TokenStates(torch.nn.Module):  # type: ignore[misc]  # torch is untyped here
    """A masked language model up to what its output layer multiplies by the word table."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self._bert = model.bert
        self._transform = model.cls.predictions.transform

    def forward(self, *inputs: Any) -> Any:
        """Token states, float32 (n_texts, n_tokens, width)."""
        return self._transform(self._bert(*inputs)[0])


def export_sparse_encoder(source: Path, out: Path, card: Card, texts: Sequence[str] = ()) -> ModelFolder:
    """Exports a BERT-shaped sparse encoder to `out`; see `bridge.training.output_layer` for what its graph gives.

    `texts` are like those that will be searched: word pieces of queries weigh by their inverse document frequency in
    them, or all the same if there are none.

    Raises:
        ModelError: the source cannot be read safely, is of another shape, or the graph disagrees with torch.
    """
    config = checked_masked_model(source)
    model = load_transformer(AutoModelForMaskedLM, source)
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch, quiet():
        traced = Path(scratch) / "traced.onnx"
        trace(_TokenStates(model).eval(), traced, inputs=FORWARD_ORDER, output=_STATES)
        graph = with_fused_attention(traced, config)
    max_tokens = min(card.max_tokens, config["max_position_embeddings"])
    keep_positions(graph, max_tokens, config)
    tokenizer = TextTokenizer(Tokenizer.from_file(str(source / TOKENIZER)), max_tokens=max_tokens)
    bias = model.cls.predictions.decoder.bias.detach().numpy().copy()
    bias[~_terms(tokenizer, len(bias))] = _NEVER
    append_output_layer(graph, _STATES, _word_table(graph, config), bias, n_terms=min(MOST_TERMS, len(bias)))
    onnx.save_model(graph, str(out / MODEL_FILE))
    files = [MODEL_FILE]
    if texts:
        np.save(out / IDF, inverse_document_frequencies(tokenizer, texts))
        files.append(IDF)
    folder = write_model(source, out, card, "sparse_encoder", files, max_tokens=max_tokens)
    _check_parity(model, folder, tokenizer)
    return folder


def checked_masked_model(source: Path) -> dict[str, Any]:
    """`config.json` of a BERT with an output layer.

    Raises:
        ModelError: it cannot be read safely, or is of another architecture.
    """
    config = checked_configuration(source)
    if config.get("architectures") != [_ARCHITECTURE]:
        raise ModelError(f"model {source} is of {config.get('architectures')}, a sparse encoder of {_ARCHITECTURE}")
    return config


def inverse_document_frequencies(tokenizer: TextTokenizer, texts: Sequence[str]) -> NDArray[np.float32]:
    """Of each word piece, float32 (n_pieces,): log(1 + (n - df + .5) / (df + .5)), as BM25 has it in Lucene."""
    counts = np.zeros(tokenizer.vocabulary_size)
    for sequence in tokenizer.sequences(texts):
        counts[np.unique(sequence["input_ids"])] += 1
    return np.log1p((len(texts) - counts + 0.5) / (counts + 0.5)).astype(np.float32)


def _terms(tokenizer: TextTokenizer, n_rows: int) -> NDArray[np.bool_]:
    """Which rows of the word table are of pieces that may be terms, (n_rows,); a table may have rows of no piece."""
    pieces = [*tokenizer.pieces, *[""] * n_rows][:n_rows]
    return np.array([is_term(piece) for piece in pieces])


def _word_table(graph: onnx.ModelProto, config: dict[str, Any]) -> str:
    """The name of the initializer that is both the input's and the output's word table."""
    shape = [config["vocab_size"], config["hidden_size"]]
    return str(next(tensor.name for tensor in graph.graph.initializer if list(tensor.dims) == shape))


def _check_parity(model: Any, folder: ModelFolder, tokenizer: TextTokenizer) -> None:
    session = Session(folder.model_file, inputs=INPUT_NAMES)
    for sequence in tokenizer.sequences([text for pair in PARITY_TEXTS for text in pair]):
        with torch.inference_mode():
            logits = model(*(torch.from_numpy(sequence[name]) for name in FORWARD_ORDER))[0][0].numpy()
        _, first = np.unique(sequence["input_ids"][0], return_index=True)
        expected = np.log1p(np.maximum(logits[first].max(axis=0), 0))
        expected[~_terms(tokenizer, len(expected))] = 0
        found = session.run_all(sequence)
        weights, ids = found["weights"][0], found["ids"][0].astype(np.int64)
        largest = np.sort(expected)[::-1][: len(weights)]
        difference = max(float(np.abs(weights - wanted).max()) for wanted in (expected[ids], largest))
        if difference > MAX_DIFFERENCE:
            raise differs(folder, difference)
