"""Tokens left out half way up, on a graph small enough to compute what must go on."""

import math

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from bridge.errors import ModelError
from bridge.training.token_pruning import FEWEST_KEPT, KEPT_STATES, prune_tokens

N_WORDS, WIDTH, HEADS = 50, 16, 2
N_QUERY = 5
SHARE = 0.4


def cross_encoder(n_layers: int, *, segments: str = "token_type_ids") -> onnx.ModelProto:
    """Words → layers of attention and one product, each with its layer norm → the first token's state."""
    chosen = np.random.default_rng(7)
    constants = {"table": chosen.normal(size=(N_WORDS, WIDTH)), "qkv_bias": np.zeros(3 * WIDTH), "ones": np.ones(WIDTH)}
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["words"]),
        helper.make_node("Cast", [segments], ["segments_float"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["segments_float", "last_axis"], ["segments_column"]),
        helper.make_node("Add", ["words", "segments_column"], ["states_0"]),
    ]
    for layer in range(n_layers):
        given, attended, left = f"states_{layer}", f"attended_{layer}", f"attention_states_{layer}"
        constants[f"qkv_{layer}"] = chosen.normal(size=(WIDTH, 3 * WIDTH)) / 4
        constants[f"product_{layer}"] = chosen.normal(size=(WIDTH, WIDTH)) / 4
        nodes += [
            helper.make_node(
                "Attention", [given, f"qkv_{layer}", "qkv_bias"], [attended], domain="com.microsoft", num_heads=HEADS
            ),
            helper.make_node("Add", [attended, given], [f"summed_{layer}"]),
            helper.make_node("LayerNormalization", [f"summed_{layer}", "ones"], [left]),
            helper.make_node("MatMul", [left, f"product_{layer}"], [f"fed_{layer}"]),
            helper.make_node("Add", [f"fed_{layer}", left], [f"summed_again_{layer}"]),
            helper.make_node("LayerNormalization", [f"summed_again_{layer}", "ones"], [f"states_{layer + 1}"]),
        ]
    nodes.append(helper.make_node("Slice", [f"states_{n_layers}", "start", "one", "one"], ["first_state"]))
    integers = {"last_axis": [2], "start": [0], "one": [1]}
    initializers = [numpy_helper.from_array(value.astype(np.float32), name) for name, value in constants.items()]
    initializers += [numpy_helper.from_array(np.array(value), name) for name, value in integers.items()]
    inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, [1, "n"]) for name in ("input_ids", segments)]
    outputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
        for name in ("first_state", f"attention_states_{n_layers // 2 - 1}")
    ]
    domains = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(
        helper.make_graph(nodes, "g", inputs, outputs, initializers), opset_imports=domains, ir_version=8
    )


def run(model: onnx.ModelProto, n_passage: int) -> list[NDArray[np.float32]]:
    ids = np.random.default_rng(n_passage).integers(0, N_WORDS, (1, N_QUERY + n_passage))
    segments = np.array([[0] * N_QUERY + [1] * n_passage])
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    results: list[NDArray[np.float32]] = session.run(None, {"input_ids": ids, "token_type_ids": segments})
    return results


def pruned(n_layers: int) -> onnx.ModelProto:
    model = cross_encoder(n_layers)
    prune_tokens(model, SHARE)
    model.graph.output.append(helper.make_tensor_value_info(KEPT_STATES, TensorProto.FLOAT, None))
    return model


@pytest.mark.parametrize("n_layers", [3, 4, 6])
@pytest.mark.parametrize("n_passage", [0, 1, FEWEST_KEPT, 41, 120])
def test_the_query_and_the_tokens_nearest_to_the_first_go_on(n_layers: int, n_passage: int) -> None:
    _, states, kept = run(pruned(n_layers), n_passage)
    query, passage = states[0, :N_QUERY], states[0, N_QUERY:]
    n_kept = min(n_passage, max(FEWEST_KEPT, math.ceil(SHARE * n_passage)))
    nearest = np.argsort(-(passage @ query[0]), kind="stable")[:n_kept]
    assert kept[0] == pytest.approx(np.concatenate([query, passage[nearest]]), abs=1e-6)


def test_short_passages_are_read_whole_and_long_ones_are_not() -> None:
    model, whole = pruned(4), cross_encoder(4)
    short = run(whole, FEWEST_KEPT)[0]
    assert run(model, FEWEST_KEPT)[0] == pytest.approx(short, abs=1e-5)
    assert np.abs(run(model, 120)[0] - run(whole, 120)[0]).max() > 1e-3


@pytest.mark.parametrize("model", [cross_encoder(2), cross_encoder(4, segments="kinds"), onnx.ModelProto()])
def test_graphs_that_need_every_token_are_refused(model: onnx.ModelProto) -> None:
    with pytest.raises(ModelError, match="without --keep-tokens"):
        prune_tokens(model, SHARE)
