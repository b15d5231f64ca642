"""Exports a transformers folder to a model folder with float32 ONNX weights, and compares it with torch."""

import tempfile
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import torch
from ctranslate2.converters import TransformersConverter
from onnxruntime.transformers import optimizer
from onnxruntime.transformers.fusion_options import FusionOptions
from transformers import AutoModel, AutoModelForSequenceClassification

from bridge.errors import ModelError
from bridge.models.artifact import Kind, ModelFolder
from bridge.models.generation import CTRANSLATE2_FILE, ONNX_FILES
from bridge.models.session import Session
from bridge.models.tokenization import INPUT_NAMES, load_tokenizer
from bridge.training import mono_t5
from bridge.training.quantization import quantize_products
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

FORWARD_ORDER = ("input_ids", "attention_mask", "token_type_ids")
"""The inputs in the order of BERT's `forward`."""

_FUSED_DOMAIN = "com.microsoft"
_SHARED_ATTRIBUTES = ("num_heads", "mask_filter_value", "scale")
"""Attributes common to ONNX Runtime's operators Attention and MultiHeadAttention."""

Engine = Literal["ctranslate2", "onnx"]
"""The runtime of a query generator."""


def export_model(kind: Kind, source: Path, out: Path, card: Card, *, engine: Engine) -> ModelFolder:
    """Exports a model of any kind to `out`; `engine` is the runtime of a query generator.

    Raises:
        ModelError: as raised by the export function of its kind.
    """
    if kind == "query_generator":
        return export_query_generator(source, out, card, engine=engine)
    return export_encoder(source, out, card) if kind == "encoder" else export_cross_encoder(source, out, card)


def export_encoder(source: Path, out: Path, card: Card) -> ModelFolder:
    """Exports a bi-encoder (BERT-shaped) to `out`: token states, float32 (n_texts, n_tokens, dimension).

    Raises:
        ModelError: the source cannot be read safely, or the graph disagrees with torch.
    """
    config = checked_configuration(source)
    model = load_transformer(AutoModel, source, add_pooling_layer=False)
    return _export(model, "last_hidden_state", config, source, out, card, kind="encoder")


def export_cross_encoder(source: Path, out: Path, card: Card) -> ModelFolder:
    """Exports a sequence classifier with one label (BERT-shaped), or a monoT5, to `out`: logits, float32 (n_pairs, 1).

    Raises:
        ModelError: the source cannot be read safely, has several labels, or the graph disagrees with torch.
    """
    config = checked_configuration(source)
    if mono_t5.ARCHITECTURE in config.get("architectures", []):
        return mono_t5.export_mono_t5(source, out, card)
    model = load_transformer(AutoModelForSequenceClassification, source)
    if model.config.num_labels != 1:
        raise ModelError(f"model {source} has {model.config.num_labels} labels, a cross-encoder has 1: train it so")
    return _export(model, "logits", config, source, out, card, kind="cross_encoder")


def export_query_generator(source: Path, out: Path, card: Card, *, engine: Engine = "ctranslate2") -> ModelFolder:
    """Exports an encoder-decoder (BART-shaped) to `out` in int8.

    CTranslate2's form is a third of the size of ONNX's and twice as fast.

    Raises:
        ModelError: the source cannot be read safely, or its shape is not one that the exporter knows.
    """
    config = checked_configuration(source)
    out.mkdir(parents=True, exist_ok=True)
    try:
        written = _for_ctranslate2(source, out) if engine == "ctranslate2" else _for_onnx_runtime(source, out)
    except (ValueError, RuntimeError) as error:
        raise ModelError(f"model {source} cannot be exported for {engine}: {error}") from error
    return write_model(
        source,
        out,
        card,
        "query_generator",
        written,
        start_id=config["decoder_start_token_id"],
        end_id=config["eos_token_id"],
    )


def _for_ctranslate2(source: Path, out: Path) -> list[str]:
    TransformersConverter(str(source)).convert(str(out), quantization="int8", force=True)
    return [CTRANSLATE2_FILE, "config.json", "shared_vocabulary.json"]


def _for_onnx_runtime(source: Path, out: Path) -> list[str]:
    # optimum takes seconds to import, and only this needs it
    from optimum.exporters.onnx import main_export

    with tempfile.TemporaryDirectory() as scratch, quiet():
        main_export(str(source), scratch, task="text2text-generation-with-past", no_post_process=True)
        for name in ONNX_FILES:
            quantize_products(Path(scratch) / name, out / name)
    return list(ONNX_FILES)


def load_transformer(kind: Any, source: Path, **options: Any) -> Any:
    """The model in float32. It returns tuples, which the exporter can trace."""
    return kind.from_pretrained(
        source,
        dtype=torch.float32,
        attn_implementation="eager",  # the form that the fusion below recognises
        return_dict=False,
        use_safetensors=True,
        local_files_only=True,
        **options,
    ).eval()


def _export(
    model: Any,
    output: str,
    config: dict[str, Any],
    source: Path,
    out: Path,
    card: Card,
    *,
    kind: Literal["encoder", "cross_encoder"],
) -> ModelFolder:
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch, quiet():
        traced = Path(scratch) / "traced.onnx"
        trace(model, traced, inputs=FORWARD_ORDER, output=output)
        graph = with_fused_attention(traced, config)
    if kind == "cross_encoder" or card.pooling == "cls":
        keep_first_token_in_last_layer(graph)
    max_tokens = min(card.max_tokens, config["max_position_embeddings"])
    keep_positions(graph, max_tokens, config)
    onnx.save_model(graph, str(out / MODEL_FILE))
    folder = write_model(
        source,
        out,
        card,
        kind,
        [MODEL_FILE],
        max_tokens=max_tokens,
        dimension=config["hidden_size"] if kind == "encoder" else None,
        pooling=card.pooling,
        normalise=card.normalise,
        query_prefix=card.query_prefix,
        passage_prefix=card.passage_prefix,
    )
    _check_parity(model, folder, first_token_only=card.pooling == "cls")
    return folder


def with_fused_attention(traced: Path, config: dict[str, Any]) -> onnx.ModelProto:
    """One Attention node per layer. The other fusions stay off: quantised, they were 11 to 13 % slower."""
    options = FusionOptions("bert")
    options.enable_skip_layer_norm = False
    options.enable_bias_skip_layer_norm = False
    options.enable_bias_gelu = False
    options.enable_embed_layer_norm = False
    optimised = optimizer.optimize_model(
        str(traced),
        model_type="bert",
        num_heads=config["num_attention_heads"],
        hidden_size=config["hidden_size"],
        opt_level=0,
        optimization_options=options,
    )
    fused = optimised.get_fused_operator_statistics()["Attention"]
    if fused != config["num_hidden_layers"]:
        raise ModelError(
            f"only {fused} of {config['num_hidden_layers']} attention layers have the shape of BERT's: "
            f"models of another shape cannot be exported"
        )
    fused_file = traced.with_name("fused.onnx")
    optimised.save_model_to_file(str(fused_file))  # which also sorts the nodes and imports the fused operators
    return onnx.load(str(fused_file))


def keep_first_token_in_last_layer(model: onnx.ModelProto) -> None:
    """Computes only the first token in the last layer, because nothing else reads the other tokens' states.

    The output stays the same, and a 6-layer model saves a seventh of its work.
    """
    graph = model.graph
    attention = [node for node in graph.node if node.op_type == "Attention"][-1]
    states, weights_name, bias, mask = attention.input[:4]
    weights = next(tensor for tensor in graph.initializer if tensor.name == weights_name)
    of_queries, of_keys, of_values = np.split(onnx.numpy_helper.to_array(weights), 3, axis=1)
    for name, bound in (("first_token_start", 0), ("first_token_end", 1), ("first_token_axis", 1)):
        graph.initializer.append(onnx.numpy_helper.from_array(np.array([bound], dtype=np.int64), name))
    for node in graph.node:
        if states in node.input and node is not attention:
            node.input[list(node.input).index(states)] = "first_token"
    replacement = [
        onnx.helper.make_node(
            "Slice", [states, "first_token_start", "first_token_end", "first_token_axis"], ["first_token"]
        )
    ]
    projected = []
    for role, source, matrix in (
        ("query", "first_token", of_queries),
        ("key", states, of_keys),
        ("value", states, of_values),
    ):
        name = f"last_attention_{role}"
        graph.initializer.append(onnx.numpy_helper.from_array(np.ascontiguousarray(matrix), f"{name}_weights"))
        replacement.append(onnx.helper.make_node("MatMul", [source, f"{name}_weights"], [name], name=f"{name}_MatMul"))
        projected.append(name)
    outputs = list(attention.output)
    fused = onnx.helper.make_node(
        "MultiHeadAttention", [*projected, bias, mask], outputs, name=attention.name, domain=_FUSED_DOMAIN
    )
    fused.attribute.extend(attribute for attribute in attention.attribute if attribute.name in _SHARED_ATTRIBUTES)
    at = list(graph.node).index(attention)
    graph.node.remove(attention)
    if not any(weights_name in node.input for node in graph.node):
        graph.initializer.remove(weights)
    for offset, node in enumerate([*replacement, fused]):
        graph.node.insert(at + offset, node)


def keep_positions(model: onnx.ModelProto, max_tokens: int, config: dict[str, Any]) -> None:
    """Drops the rows of the position table beyond `max_tokens`."""
    full = [config["max_position_embeddings"], config["hidden_size"]]
    for tensor in model.graph.initializer:
        if tensor.name.endswith("position_embeddings.weight") and list(tensor.dims) == full:
            tensor.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor)[:max_tokens], tensor.name))


def _check_parity(model: Any, folder: ModelFolder, *, first_token_only: bool) -> None:
    tokenizer = load_tokenizer(folder)
    session = Session(folder.model_file, inputs=INPUT_NAMES)
    for query, passage in PARITY_TEXTS:
        arrays = tokenizer.pairs(query, [passage])[0]
        with torch.inference_mode():
            expected = model(*(torch.from_numpy(arrays[name]) for name in FORWARD_ORDER))[0].numpy()
        if first_token_only:
            expected = expected[:, :1]
        difference = float(np.abs(session.run(arrays) - expected).max())
        if difference > MAX_DIFFERENCE:
            raise differs(folder, difference)
