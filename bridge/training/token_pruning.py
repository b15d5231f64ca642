"""Prunes tokens in a cross-encoder: its upper layers read only the passage tokens that matter to the score.

Half-way up, the state of the first token, which the score is computed from, already shows what it attends to. The
passage tokens whose states have the largest inner product with it stay, with all tokens of the query; the others are
dropped (token pruning: Goyal et al. 2020, "PoWER-BERT": https://arxiv.org/abs/2001.08950; the first token as the judge,
between attention and feed-forward part: Liang et al. 2022, "EViT": https://arxiv.org/abs/2202.07800). No further
training.
"""

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from bridge.errors import ModelError

KEPT_SHARE = 0.4
"""Share of the passage tokens in our own cross-encoders: the same nDCG@10 in three quarters of the time
(docs/explanation/models.md)."""

FEWEST_KEPT = 16
"""At least this many tokens of a passage stay, so short passages are read whole."""

FEWEST_LAYERS = 3

KEPT_STATES = "kept_states"
"""Tensor of the remaining states: float32 (1, n_tokens, hidden_size)."""

_SEGMENTS = "token_type_ids"


def prune_tokens(model: onnx.ModelProto, share: float) -> None:
    """Passes only `share` of a passage's tokens, rounded up, to the upper half of the layers.

    For graphs that take one pair at a time and no mask, because the number of tokens depends on the pair.

    Raises:
        ModelError: the graph has too few layers, or does not distinguish passage from query.
    """
    graph = model.graph
    states = _states_half_way_up(graph)
    if states is None or _SEGMENTS not in {given.name for given in graph.input}:
        raise ModelError(
            f"tokens can be left out of cross-encoders of {FEWEST_LAYERS} layers and more, which tell query and "
            f"passage apart by `{_SEGMENTS}`, and this is none: quantise it without --keep-tokens"
        )
    first_reader = min(place for place, node in enumerate(graph.node) if states in node.input)
    for node in graph.node:
        for place, name in enumerate(node.input):
            if name == states:
                node.input[place] = KEPT_STATES
    constants: dict[str, NDArray[np.generic]] = {
        "start": np.array([0]),
        "one": np.array([1]),
        "end": np.array([np.iinfo(np.int64).max]),
        "share": np.array([share], dtype=np.float32),
        "fewest": np.array([FEWEST_KEPT]),
    }
    for name, value in constants.items():
        graph.initializer.append(numpy_helper.from_array(value, f"pruning_{name}"))
    for offset, node in enumerate(_selection(states)):
        graph.node.insert(first_reader + offset, node)


def _states_half_way_up(graph: onnx.GraphProto) -> str | None:
    """The output of attention in the last layer of the lower half, before the feed-forward part."""
    nodes = list(graph.node)
    layers = [place for place, node in enumerate(nodes) if node.op_type in ("Attention", "MultiHeadAttention")]
    if len(layers) < FEWEST_LAYERS:
        return None
    above = nodes[layers[len(layers) // 2 - 1] :]
    return next((node.output[0] for node in above if node.op_type == "LayerNormalization"), None)


def _selection(states: str) -> list[onnx.NodeProto]:
    """The nodes from `states` to `KEPT_STATES`. The query's part stays in front, and with it the first token."""
    steps: list[tuple[str, list[str], list[str], dict[str, int | list[int]]]] = [
        ("ReduceSum", [_SEGMENTS, "pruning_one"], ["n_passage"], {"keepdims": 0}),
        ("Shape", [_SEGMENTS], ["segments_shape"], {}),
        ("Gather", ["segments_shape", "pruning_one"], ["n_tokens"], {}),
        ("Sub", ["n_tokens", "n_passage"], ["n_query"], {}),
        ("Slice", [states, "pruning_start", "n_query", "pruning_one"], ["query_states"], {}),
        ("Slice", [states, "n_query", "pruning_end", "pruning_one"], ["passage_states"], {}),
        ("Slice", [states, "pruning_start", "pruning_one", "pruning_one"], ["judging_state"], {}),
        ("Transpose", ["judging_state"], ["judging_column"], {"perm": [0, 2, 1]}),
        ("MatMul", ["passage_states", "judging_column"], ["relevance"], {}),
        ("Flatten", ["relevance"], ["flat_relevance"], {"axis": 1}),
        ("Cast", ["n_passage"], ["n_passage_float"], {"to": TensorProto.FLOAT}),
        ("Mul", ["n_passage_float", "pruning_share"], ["exact_share"], {}),
        ("Ceil", ["exact_share"], ["whole_share"], {}),
        ("Cast", ["whole_share"], ["n_of_share"], {"to": TensorProto.INT64}),
        ("Max", ["n_of_share", "pruning_fewest"], ["n_wanted"], {}),
        ("Min", ["n_wanted", "n_passage"], ["n_kept"], {}),
        ("TopK", ["flat_relevance", "n_kept"], ["kept_relevance", "kept_rows"], {"axis": 1}),
        ("Squeeze", ["kept_rows", "pruning_start"], ["kept_places"], {}),
        ("Gather", ["passage_states", "kept_places"], ["kept_passage_states"], {"axis": 1}),
        ("Concat", ["query_states", "kept_passage_states"], [KEPT_STATES], {"axis": 1}),
    ]
    return [
        helper.make_node(kind, inputs, outputs, name=f"pruning_{outputs[0]}", **attributes)
        for kind, inputs, outputs, attributes in steps
    ]
