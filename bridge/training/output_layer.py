"""The output layer of a sparse encoder as nodes of an ONNX graph, in float32 and in int8.

A text's weight of a word piece is the maximum over its tokens of log(1 + relu(logit)) (Formal et al. 2021, "SPLADE v2":
https://arxiv.org/abs/2109.10086). The layer is as wide as the vocabulary, and takes nearly all of a small model's time.
Three things make it cheap:

- Of equal tokens only the first one's state goes through it, which is 57 % of an abstract's tokens. The weights stay
  nearly the same: their cosine is .993, and 97 % of the 128 largest terms stay.
- Bias, scale and logarithm keep the order of a piece's logits, so they come after the maximum, once per text.
- In int8 the maximum of four parts of the tokens is taken element by element, which is faster than over an axis.

Only the largest terms leave the graph.
"""

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from bridge.models.sparse_encoder import OUTPUTS

_PIECES_AT_ONCE = 2048
"""Word pieces whose logits are computed at once in int8: those of all tokens then stay in the processor's cache."""

_PARTS = 4
"""Parts of the tokens whose products are compared element by element."""

_LARGEST = "largest_logits"
"""The logits without their bias, float32 (n_pieces,): the maximum over the tokens."""

_FIRST_STATES = "first_states"
"""The states of each distinct token's first occurrence, float32 (n_distinct, width)."""

_FLOAT_NODES = ("output_table", "output_logits", "output_maximum")


def append_output_layer(
    model: onnx.ModelProto, states: str, table: str, bias: NDArray[np.float32], n_terms: int
) -> None:
    """Appends the layer to a graph that takes `input_ids` and gives `states`, float32 (1, n_tokens, width): their
    products with the word table, the initializer `table`, which the graph holds once.

    `bias` is float32 (n_pieces,). The graph then gives `OUTPUTS` of the `n_terms` largest terms.
    """
    graph = model.graph
    _add(
        graph,
        output_bias=bias,
        output_one=np.float32(1),
        output_count=_whole(n_terms),
        output_flat=_whole(-1),
        output_axis=_whole(0),
    )
    transposed, logits, maximum = _FLOAT_NODES
    graph.node.extend(
        [
            helper.make_node("Reshape", ["input_ids", "output_flat"], ["flat_ids"]),
            helper.make_node("Unique", ["flat_ids"], ["distinct_ids", "first_places"], sorted=0),
            helper.make_node("Squeeze", [states, "output_axis"], ["all_states"]),
            helper.make_node("Gather", ["all_states", "first_places"], [_FIRST_STATES], axis=0),
            helper.make_node("Transpose", [table], [transposed], transposed, perm=[1, 0]),
            helper.make_node("MatMul", [_FIRST_STATES, transposed], [logits], logits),
            helper.make_node("ReduceMax", [logits], [_LARGEST], maximum, axes=[0], keepdims=0),
            helper.make_node("Add", [_LARGEST, "output_bias"], ["biased_logits"]),
            helper.make_node("TopK", ["biased_logits", "output_count"], ["top_logits", "top_ids"]),
            helper.make_node("Relu", ["top_logits"], ["positive_logits"]),
            helper.make_node("Add", ["positive_logits", "output_one"], ["logits_and_one"]),
            helper.make_node("Log", ["logits_and_one"], ["top_weights"]),
            helper.make_node("Unsqueeze", ["top_weights", "output_axis"], [OUTPUTS[0]]),
            helper.make_node("Unsqueeze", ["top_ids", "output_axis"], [OUTPUTS[1]]),
        ]
    )
    del graph.output[:]
    graph.output.extend(
        helper.make_tensor_value_info(name, kind, ["batch", n_terms])
        for name, kind in zip(OUTPUTS, (TensorProto.FLOAT, TensorProto.INT64), strict=True)
    )


def quantize_output_layer(model: onnx.ModelProto) -> None:
    """Computes the layer's products in int8, with the rows and scales that the graph's word table has already; changes
    nothing if the graph has no such layer, or a small table in float32.

    A scale is above zero, so the maximum of the whole numbers is that of the logits.
    """
    graph = model.graph
    nodes = {node.name: node for node in graph.node if node.name in _FLOAT_NODES}
    initializers = {tensor.name: tensor for tensor in graph.initializer}
    table = nodes[_FLOAT_NODES[0]].input[0] if nodes else ""
    rows, scales = initializers.get(f"{table}_rows"), initializers.get(f"{table}_scales")
    if rows is None or scales is None:
        return
    _add(
        graph,
        output_scales=numpy_helper.to_array(scales)[:, 0],
        output_zero=np.int64(0),
        output_step=np.int64(1),
        output_parts=np.int64(_PARTS),
    )
    parts = [f"output_states_{part}" for part in range(_PARTS)]
    made = [
        helper.make_node(
            "DynamicQuantizeLinear",
            [_FIRST_STATES],
            ["output_states_int8", "output_states_scale", "output_states_zero"],
        ),
        helper.make_node("Mul", ["output_states_scale", "output_scales"], ["output_logit_scales"]),
        # Parts of one length, which the last state fills up: it changes no maximum.
        helper.make_node("Size", ["first_places"], ["output_n_states"]),
        helper.make_node("Sub", ["output_n_states", "output_step"], ["output_last_state"]),
        helper.make_node("Div", ["output_last_state", "output_parts"], ["output_whole_parts"]),
        helper.make_node("Add", ["output_whole_parts", "output_step"], ["output_part_length"]),
        helper.make_node("Mul", ["output_part_length", "output_parts"], ["output_n_rows"]),
        helper.make_node("Range", ["output_zero", "output_n_rows", "output_step"], ["output_rows"]),
        helper.make_node("Min", ["output_rows", "output_last_state"], ["output_rows_of_states"]),
        helper.make_node("Gather", ["output_states_int8", "output_rows_of_states"], ["output_filled_states"], axis=0),
        helper.make_node("Split", ["output_filled_states"], parts, axis=0),
    ]
    blocks = []
    for start in range(0, rows.dims[0], _PIECES_AT_ONCE):
        name = f"output_{start}"
        _add(
            graph,
            **{
                f"{name}_start": _whole(start),
                f"{name}_end": _whole(min(start + _PIECES_AT_ONCE, rows.dims[0])),
            },
        )
        # Of constants only: ONNX Runtime computes both when it loads the model.
        made += [
            helper.make_node("Slice", [rows.name, f"{name}_start", f"{name}_end", "output_axis"], [f"{name}_rows"]),
            helper.make_node("Transpose", [f"{name}_rows"], [f"{name}_table"], perm=[1, 0]),
            *(
                helper.make_node("MatMulInteger", [part, f"{name}_table", "output_states_zero"], [f"{name}_{part}"])
                for part in parts
            ),
            helper.make_node("Max", [f"{name}_{part}" for part in parts], [f"{name}_products"]),
            helper.make_node("ReduceMax", [f"{name}_products"], [name], axes=[0], keepdims=0),
        ]
        blocks.append(name)
    made += [
        helper.make_node("Concat", blocks, ["output_largest_products"], axis=0),
        helper.make_node("Cast", ["output_largest_products"], ["output_largest_products_float"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["output_largest_products_float", "output_logit_scales"], [_LARGEST]),
    ]
    at = list(graph.node).index(nodes[_FLOAT_NODES[0]])
    for node in nodes.values():
        graph.node.remove(node)
    for offset, node in enumerate(made):
        graph.node.insert(at + offset, node)


def _whole(number: int) -> NDArray[np.int64]:
    return np.array([number], dtype=np.int64)


def _add(graph: onnx.GraphProto, **constants: NDArray[np.generic] | np.generic) -> None:
    graph.initializer.extend(numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items())
